"""Whole panels: reproducibility, cracks as events, nothing that gives the class away."""

import math
from dataclasses import fields, replace
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict

from pipelines.fpcb.scenarios import NAMES, SCENARIOS
from pipelines.fpcb.synthesis.config import COMPATIBILITY, GenerateConfig
from pipelines.fpcb.synthesis.generator import bend, draw_curves, generate
from pipelines.fpcb.synthesis.plan import make_plan, truth_table
from pipelines.fpcb.synthesis.variation import CAMERA_MODES, Nuisances

TABLE = {scenario.name: scenario for scenario in SCENARIOS}
CRACKED = [scenario.name for scenario in SCENARIOS if scenario.label == 1]


def plain_panel(name, truth, frames=60, fps=30.0):
    """Points (frames, n, 2) of a panel by the written formulas, one number at a time, in pixels."""
    kind, n = TABLE[name], truth["n_points"]
    s = [p / (n - 1) for p in range(n)]
    bump = [kind.gain * math.exp(-0.5 * ((x - truth["place"]) / kind.width) ** 2) for x in s]
    raw = [max(0.2, 1 + kind.skew * (2 * x - 1) + b) for x, b in zip(s, bump, strict=True)]
    mean = sum((a + b) / 2 for a, b in pairwise(raw)) / (n - 1)
    weights = [value / mean for value in raw]

    drive = []
    for f in range(frames):
        u = f / (frames - 1)
        v = min(max((u - kind.delay) / (1 - kind.delay), 0), 1)
        asked = 3 * v**2 - 2 * v**3 + kind.snap_gain * math.exp(-(((u - 0.72) / 0.09) ** 2))
        drive.append(min(max(asked, 0), 1.12))
    crack_frame = truth["crack_frame"]
    theta, end, points = 0.0, math.pi * kind.angle_ratio, []
    for f in range(frames):
        near = drive[max(0, f - 2) : f + 3]
        response = kind.response
        if f >= crack_frame:
            response *= 1 + kind.shock * math.exp(-kind.decay * (f - crack_frame))
        theta += response * (end * sum(near) / len(near) - theta)
        theta = min(max(theta, 0), 1.05 * end)

        x = 0.42 * 1920 + 2 * math.sin(2 * math.pi * 0.2 * f / fps)
        y = 0.52 * 1080
        if kind.label and crack_frame <= f < crack_frame + kind.shake_frames:
            cycles = kind.shake_hz * (f - crack_frame) / fps
            y += 0.5 * math.exp(-kind.damping * cycles) * math.sin(2 * math.pi * cycles)
        step, angle, frame = truth["length_px"] / (n - 1), 0.0, [(x, y)]
        for a, b in pairwise(weights):
            middle = angle + theta / (n - 1) * (3 * a + b) / 8  # half a segment on
            x, y = x + step * math.cos(middle), y + step * math.sin(middle)
            angle += theta / (n - 1) * (a + b) / 2
            frame.append((x, y))
        points.append(frame)
    return np.array(points)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "kink"])
def test_compatibility_mode_gives_the_tables_panels_to_the_pixel(name):
    config = GenerateConfig(panels=50, scenario=name, noise=0.0, **COMPATIBILITY)
    numbers = np.array([3, 41])
    batch, table = generate(config, numbers)
    plan = make_plan(config, numbers)
    for row, truth in enumerate(table.to_pylist()):
        event = {"place": plan.events.place[row], "crack_frame": plan.events.crack_frame[row]}
        assert event["crack_frame"] == 42
        low, high = TABLE[name].place
        assert low <= event["place"] <= high
        expected = np.rint(plain_panel(name, truth | event)).astype(int)
        seen = batch.points[row, :, :, : truth["n_points"]]
        np.testing.assert_array_equal(np.moveaxis(seen, 0, 2), expected)


def test_compatibility_mode_draws_from_the_tables_ranges():
    config = GenerateConfig(panels=3_000, **COMPATIBILITY)
    table = truth_table(config, np.arange(3_000)).to_pandas()
    usual = table.scenario == "normal"
    for column, low, high in (
        ("n_points", 210, 250),
        ("noise_px", 0.15, 0.38),
        ("length_px", 215, 248),
        ("px_per_mm", 10, 10),
    ):
        assert table[~usual][column].between(low, high).all()
    assert table[usual].n_points.min() == 200
    assert table[usual].n_points.max() == 260
    assert set(table.thickness_m) == {90e-6}
    assert set(table.severity.dropna()) == {1.0}
    assert set(table.damage_frame.dropna()) == {0}


def test_panel_has_the_same_bytes_whatever_the_batch():
    config = GenerateConfig(panels=400, seed=9)
    numbers = np.random.default_rng(0).permutation(400)[:90]
    whole, truth = generate(config, numbers)
    assert {"crack", "normal"} <= set(truth["scenario"].to_pylist())
    for cut in (1, 7, 33):
        for first in range(0, 90, cut):
            rows = slice(first, first + cut)
            part, part_truth = generate(config, numbers[rows])
            assert part_truth.equals(truth.slice(first, cut))
            width = part.points.shape[3]
            np.testing.assert_array_equal(part.points, whole.points[rows, :, :, :width])
            for name in ("number", "n_points", "fps", "metres_per_pixel"):
                np.testing.assert_array_equal(getattr(part, name), getattr(whole, name)[rows])


def test_batch_is_padded_to_its_longest_panel_with_zeros():
    batch, table = generate(GenerateConfig(panels=30), np.arange(30))
    assert batch.points.shape == (30, 2, 60, batch.n_points.max())
    np.testing.assert_array_equal(batch.n_points, table["n_points"])
    beyond = np.arange(batch.points.shape[3]) >= batch.n_points[:, None]
    points = batch.points.transpose(0, 3, 1, 2)
    assert not points[beyond].any()
    assert (points[~beyond] > 0).all()


def test_no_numbers_give_an_empty_batch():
    batch, table = generate(GenerateConfig(), [])
    assert len(batch) == 0
    assert table.num_rows == 0


@pytest.mark.parametrize("name", [name for name in CRACKED if name != "pre_damage"])
def test_cracked_panel_is_its_good_twin_to_the_byte_before_the_crack(name):
    config = GenerateConfig(panels=60, scenario=name, kink_deg=(10.0, 30.0), seed=4)
    cracked, truth = generate(config, np.arange(60))
    good, _ = generate(replace(config, scenario="normal"), np.arange(60))
    differ = (cracked.points != good.points).any(axis=(1, 3))
    crack_frame = np.array(truth["crack_frame"])
    after = np.arange(60) >= crack_frame[:, None]
    assert truth["damage_frame"].equals(truth["crack_frame"])
    assert not differ[~after].any()
    assert differ[after].mean() > 0.95


def test_pre_damaged_panel_differs_from_the_first_bend_on():
    config = GenerateConfig(panels=60, scenario="pre_damage")
    damaged, truth = generate(config, np.arange(60))
    good, _ = generate(replace(config, scenario="normal"), np.arange(60))
    assert set(truth["damage_frame"].to_pylist()) == {0}
    assert (damaged.points != good.points).any(axis=(1, 3))[:, 12:].all()


def test_truth_is_null_where_there_is_no_crack():
    table = truth_table(GenerateConfig(panels=2_000), np.arange(2_000)).to_pandas()
    for column in ("crack_frame", "damage_frame", "crack_place", "severity", "hinge_deg"):
        np.testing.assert_array_equal(table[column].isna(), table.label == 0)
    distorted = table.scenario == "light_distortion"
    np.testing.assert_array_equal(table.distortion_px.notna(), distorted)
    cracked = table[table.label == 1]
    assert cracked.crack_frame.between(8, 55).all()
    assert cracked.crack_frame.std() > 7  # not to be guessed
    assert cracked.crack_place.std() > 0.15
    assert cracked.severity.between(0.5, 1.5).all()


@pytest.mark.parametrize("kink_deg", [0.1, 3.0, 30.0])
def test_kink_turns_by_its_angle_and_leaves_the_whole_bend_alone(kink_deg):
    config = GenerateConfig(panels=20, scenario="kink", kink_deg=(kink_deg,), noise=0.0)
    plan = make_plan(config, np.arange(20))
    np.testing.assert_allclose(plan.hinge_deg, kink_deg)
    end_deg = np.rad2deg(bend(config, plan)[:, -1])
    reached = end_deg / (180 * plan.nuisances.end_ratio)  # the hinge grows with the bend
    for row, curve in enumerate(draw_curves(config, plan)):
        count = plan.nuisances.n_points[row]
        steps = np.diff(curve[:, -1, :count], axis=1)
        angle = np.rad2deg(np.unwrap(np.arctan2(steps[1], steps[0])))
        middle = (np.arange(count - 1) + 0.5) / (count - 1)
        low, high = (
            np.interp(plan.events.place[row] + side * 0.05, middle, angle) for side in (-1, 1)
        )
        hinge_deg = reached[row] * kink_deg
        even = end_deg[row] - hinge_deg
        slope = plan.nuisances.skew[row] * (2 * plan.events.place[row] - 1)
        rest = 0.1 * even * (1 + slope)
        assert high - low - rest == pytest.approx(hinge_deg, abs=0.02 + 0.01 * kink_deg)
        assert angle[-1] - angle[0] == pytest.approx(end_deg[row], rel=0.006)


def test_kink_angles_spread_evenly_in_size():
    config = GenerateConfig(panels=2_000, scenario="kink")
    found = np.log(np.array(truth_table(config, np.arange(2_000))["hinge_deg"]))
    assert np.exp([found.min(), found.max()]) == pytest.approx([0.1, 30], rel=0.02)
    assert found.mean() == pytest.approx((np.log(0.1) + np.log(30)) / 2, abs=0.12)


def auc(features, label):
    model = HistGradientBoostingClassifier(max_iter=40, random_state=0)
    score = cross_val_predict(model, features, label, cv=3, method="predict_proba")[:, 1]
    return roc_auc_score(label, score)


def test_nuisances_do_not_give_the_class_away():
    numbers = np.arange(10_000)
    for config, told in ((GenerateConfig(panels=10_000), False), (compatible(10_000), True)):
        table = truth_table(config, numbers)
        nuisances = np.column_stack([encoded(table, field.name) for field in fields(Nuisances)])
        found = auc(nuisances, np.array(table["label"]))
        assert found > 0.55 if told else 0.45 < found < 0.55


@pytest.mark.parametrize(("onset", "told"), [("event", False), ("from_start", True)])
def test_frames_before_the_crack_carry_no_signal(onset, told):
    """Of good panels, the frames before the crack that was drawn for them and did not happen."""
    n = 1_800
    config = GenerateConfig(panels=n, seed=2, onset="event")
    names = np.array(["crack", "uv_overcured", "micro_crack"])
    label = np.arange(n) % 2
    which = np.where(label == 1, names[np.arange(n) // 2 % 3], "normal")
    rows = []
    for name in np.unique(which):
        numbers = np.flatnonzero(which == name)
        batch, _ = generate(replace(config, scenario=name, onset=onset), numbers)
        crack = truth_table(replace(config, scenario="crack"), numbers)["crack_frame"].to_numpy()
        rows.append((numbers, [before(batch, i, frame) for i, frame in enumerate(crack)]))
    features = np.empty((n, len(rows[0][1][0])))
    for numbers, found in rows:
        features[numbers] = found
    found = auc(features, label)
    assert found > 0.9 if told else 0.45 < found < 0.55


def before(batch, row, crack_frame):
    """Shape in the last three frames before the crack, its changes, and how much it scatters."""
    points = batch.points[row, :, :crack_frame, : batch.n_points[row]].astype(float)
    places = np.linspace(0, points.shape[2] - 1, 9).astype(int)
    shape = points[:, -3:, places] - points[:, -3:, :1]
    angle = np.arctan2(*np.diff(points[::-1, -1][:, places], axis=1))
    scatter = np.diff(points, 2, axis=2).std(axis=(0, 2))[-3:]
    speed = np.abs(np.diff(points, axis=1)).mean(axis=(0, 2))
    return np.concatenate(
        [shape.ravel(), np.diff(np.unwrap(angle)), scatter, speed[-3:], [crack_frame, speed.max()]]
    )


def encoded(table: pa.Table, name):
    values = table[name].to_pylist()
    return [CAMERA_MODES.index(v) for v in values] if name == "camera_mode" else values


def compatible(panels):
    return GenerateConfig(panels=panels, **COMPATIBILITY)
