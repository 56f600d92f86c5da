"""Features of panels: against a plain reference, and what must not change them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from slow_features import slow_features

from cluster.errors import InputError
from pipelines.fpcb.features import extraction as features
from pipelines.fpcb.features.extraction import FeatureConfig, extract
from pipelines.fpcb.features.table import COLUMNS, names
from pipelines.fpcb.panels import PanelBatch


def arc_points(rng, count, n_frames=60, kink=0.0, start=30, noise_px=0.25):
    """A board that bends to a U, with a kink at 0.7 of its length from frame ``start`` on."""
    s = np.linspace(0, 1, count)
    u = np.linspace(0, 1, n_frames)[:, None]
    angle = np.pi * (3 * u**2 - 2 * u**3) * s + kink * (np.arange(n_frames) >= start)[:, None] * (
        s > 0.7
    )
    step = 230 / (count - 1) * np.stack([np.cos(angle), np.sin(angle)])[..., 1:]
    curve = np.concatenate([np.zeros((2, n_frames, 1)), np.cumsum(step, axis=-1)], axis=-1)
    return np.rint(curve + 500 + rng.normal(0, noise_px, curve.shape)).astype(np.int16)


def batch_of(*panels, fps=30.0, metres_per_pixel=1e-4, width=None):
    counts = np.array([p.shape[-1] for p in panels], np.int32)
    points = np.zeros((len(panels), *panels[0].shape[:2], width or counts.max()), np.int16)
    for row, p in zip(points, panels, strict=True):
        row[..., : p.shape[-1]] = p
    n = len(panels)
    return PanelBatch(
        np.arange(n), points, counts, np.full(n, float(fps)), np.full(n, float(metres_per_pixel))
    )


def frame_of(found, name):
    return found.frame[..., names("frame").index(name)]


def panel_of(found, name):
    return found.panel[..., names("panel").index(name)]


@pytest.fixture(scope="module")
def panels():
    rng = np.random.default_rng(5)
    return [arc_points(rng, int(count)) for count in rng.integers(200, 261, 37)]


def test_features_match_the_plain_reference():
    points = arc_points(np.random.default_rng(1), 217, kink=0.5)
    found = extract(batch_of(points, fps=25.0, metres_per_pixel=2e-4))
    frame, panel, maps = slow_features(points, 25.0, 2e-4)
    for name, expected in frame.items():
        scale = np.abs(expected).max()
        np.testing.assert_allclose(
            frame_of(found, name)[0], expected, rtol=1e-4, atol=2e-4 * scale, err_msg=name
        )
    for name, expected in panel.items():
        np.testing.assert_allclose(
            panel_of(found, name)[0], expected, rtol=2e-3, atol=1e-4, err_msg=name
        )
    assert tuple(maps) == names("map")
    for channel, (name, expected) in zip(found.maps[0], maps.items(), strict=True):
        atol = 1e-3 * np.abs(expected).max()
        np.testing.assert_allclose(channel, expected, rtol=1e-3, atol=atol, err_msg=name)


def test_features_are_exactly_the_columns_of_the_table(panels, monkeypatch):
    made = {"frame": set(), "panel": set()}
    fill = features._fill

    def record(out, order, columns):
        made["frame" if out.ndim == 3 else "panel"] |= set(columns)
        fill(out, order, columns)

    monkeypatch.setattr(features, "_fill", record)
    found = extract(batch_of(panels[0]))
    for level, columns in made.items():
        assert columns == {c.name for c in COLUMNS if c.level == level}
    assert found.frame.shape == (1, 60, len(names("frame")))
    assert found.panel.shape == (1, len(names("panel")))
    assert found.maps.shape == (1, len(names("map")), 60, 64)
    assert (found.frame.dtype, found.panel.dtype, found.maps.dtype) == ("f4", "f4", "f2")


@pytest.mark.parametrize("chosen", [[3], [36, 2], list(range(20)), list(range(36, -1, -1))])
def test_features_are_the_same_bytes_in_any_batch(panels, chosen):
    whole = extract(batch_of(*panels))
    part = extract(batch_of(*(panels[i] for i in chosen), width=300))
    for row, i in enumerate(chosen):
        for one, other in (
            (part.frame[row], whole.frame[i]),
            (part.panel[row], whole.panel[i]),
            (part.maps[row], whole.maps[i]),
        ):
            assert one.tobytes() == other.tobytes()


def test_features_never_read_the_padding(panels):
    clean = batch_of(*panels[:4], width=280)
    dirty = batch_of(*panels[:4], width=280)
    for row, count in zip(dirty.points, dirty.n_points, strict=True):
        row[..., count:] = 12_345
    assert extract(clean).frame.tobytes() == extract(dirty).frame.tobytes()


@pytest.mark.parametrize("shift", [(37, -12), (-500, 900), (30_000, 0)])
def test_features_are_the_same_bytes_when_the_panel_is_elsewhere(panels, shift):
    moved = panels[0] + np.array(shift, np.int16)[:, None, None]
    here, there = extract(batch_of(panels[0])), extract(batch_of(moved))
    assert here.frame.tobytes() == there.frame.tobytes()
    assert here.panel.tobytes() == there.panel.tobytes()
    assert here.maps.tobytes() == there.maps.tobytes()


def test_time_run_backwards_turns_velocity_around_and_keeps_acceleration(panels):
    there, back = extract(batch_of(panels[0])), extract(batch_of(panels[0][:, ::-1]))
    for name, sign in (
        ("velocity_x_px_s", -1),
        ("acceleration_y_px_s2", 1),
        ("speed_max_px_s", 1),
        ("impact_max_px_s", 1),
        ("bend_angle_deg", 1),
        ("bend_rate_deg_s", -1),
        ("curvature_max_per_px", 1),
    ):
        expected = sign * frame_of(there, name)[0, ::-1]
        scale = np.abs(expected).max()
        np.testing.assert_allclose(frame_of(back, name)[0], expected, atol=1e-4 * scale)


def test_a_board_twice_as_large_has_half_the_curvature_and_the_same_maps():
    points = arc_points(np.random.default_rng(2), 230)
    small, large = extract(batch_of(4 * points)), extract(batch_of(8 * points))
    for name, factor in (
        ("curvature_max_per_px", 0.5),
        ("length_px", 2),
        ("speed_mean_px_s", 2),
        ("bend_angle_deg", 1),
        ("curvature_concentration", 1),
    ):
        # Strays are clipped at a fixed number of pixels, which these hardly have.
        ratio = frame_of(large, name)[0, 10:] / frame_of(small, name)[0, 10:]
        assert np.median(ratio) == pytest.approx(factor, rel=0.02), name


def test_units_follow_fps_and_scale(panels):
    slow = extract(batch_of(panels[0]))
    fast = extract(batch_of(panels[0], fps=60.0, metres_per_pixel=2e-4))
    for name, factor in (
        ("speed_max_px_s", 2),
        ("acceleration_max_px_s2", 4),
        ("impact_max_px_s", 2),
        ("speed_max_m_s", 4),
        ("acceleration_mean_m_s2", 8),
        ("curvature_max_per_m", 0.5),
        ("strain_max", 0.5),
        ("length_m", 2),
        ("speed_mean_rate2_px_s3", 8),
    ):
        np.testing.assert_allclose(frame_of(fast, name), factor * frame_of(slow, name), rtol=1e-5)
    assert panel_of(fast, "kink_deg_dominant_hz") == 2 * panel_of(slow, "kink_deg_dominant_hz")


def test_si_columns_alone_are_nan_when_the_scale_is_unknown(panels):
    found = extract(batch_of(panels[0], metres_per_pixel=np.nan))
    for level, values in (("frame", found.frame[0]), ("panel", found.panel[:1])):
        unknown = {
            n for n, column in zip(names(level), values.T, strict=True) if np.isnan(column).all()
        }
        metric = {
            c.name for c in COLUMNS
            if c.level == level and (c.unit.split("/")[0] == "m" or "/m" in c.unit)
        }  # fmt: skip
        strain = {n for n in names(level) if n.startswith("strain")}
        assert unknown == metric | strain
        rest = [j for j, n in enumerate(names(level)) if n not in unknown]
        assert np.isfinite(values[:, rest]).all()


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=50))
@settings(deadline=None)
def test_halves_are_those_of_astype(values):
    values = np.array(values, np.float32)
    expected = np.clip(values, -65504, 65504).astype(np.float16)
    # Below the smallest normal number the last bit may round twice.
    np.testing.assert_allclose(features.halves(values), expected, rtol=0, atol=6e-8)
    normal = np.abs(values) >= 2.0**-14
    np.testing.assert_array_equal(features.halves(values)[normal], expected[normal])


def test_a_kink_shows_where_and_when_it_comes():
    points = arc_points(np.random.default_rng(3), 240, kink=np.radians(30), start=33)
    found = extract(batch_of(points))
    assert panel_of(found, "change_peak_time")[0] * 59 == pytest.approx(33, abs=1)
    assert panel_of(found, "change_peak_place")[0] == pytest.approx(0.7, abs=0.02)
    assert panel_of(found, "kink_end_place")[0] == pytest.approx(0.7, abs=0.02)
    assert panel_of(found, "kink_end_deg")[0] == pytest.approx(30, rel=0.15)
    assert panel_of(found, "kink_start_deg")[0] < 3


def test_no_feature_of_a_frame_looks_further_than_its_reach():
    good = arc_points(np.random.default_rng(4), 240)
    cracked = arc_points(np.random.default_rng(4), 240, kink=0.6, start=40)
    np.testing.assert_array_equal(good[:, :40], cracked[:, :40])
    one, other = extract(batch_of(good)), extract(batch_of(cracked))
    before = 40 - FeatureConfig().reach_frames
    assert one.frame[0, :before].tobytes() == other.frame[0, :before].tobytes()
    assert one.maps[0, :, :before].tobytes() == other.maps[0, :, :before].tobytes()
    own = names("frame").index("kink_place") + 1
    assert one.frame[0, :40, :own].tobytes() == other.frame[0, :40, :own].tobytes()
    assert one.frame[0, 39].tobytes() != other.frame[0, 39].tobytes()


def test_stray_points_hurt_little():
    rng = np.random.default_rng(6)
    points = arc_points(rng, 230)
    spiked = points + (rng.random(points.shape) < 0.03) * rng.choice([-3, 3], points.shape)
    clean, dirty = extract(batch_of(points)), extract(batch_of(spiked.astype(np.int16)))
    rms = names("frame").index("excess_rms_rad")
    assert dirty.frame[0, :, rms].mean() < 1.5 * clean.frame[0, :, rms].mean()
    error = frame_of(dirty, "bend_angle_deg") - frame_of(clean, "bend_angle_deg")
    assert np.sqrt((error**2).mean()) < 2


def degenerate():
    line = np.stack(np.broadcast_arrays(np.arange(20), np.zeros((6, 20)))).astype(np.int16)
    rng = np.random.default_rng(0)
    return {
        "all points equal": np.full((2, 6, 20), 7, np.int16),
        "two frames": line[:, :2],
        "three frames": line[:, :3],
        "four points": line[..., :4],
        "half the points equal": np.where(np.arange(20) < 10, line, line[..., 10:11]),
        "back and forth": np.where(np.arange(20) < 10, line, line[..., ::-1]),
        "extreme pixels": rng.choice([-32_768, 32_767], (2, 60, 40)).astype(np.int16),
        "noise": rng.integers(-32_768, 32_768, (2, 8, 300)).astype(np.int16),
    }


@pytest.mark.parametrize("kind", degenerate())
@pytest.mark.filterwarnings("error")
def test_features_are_finite_whatever_the_points(kind):
    found = extract(batch_of(degenerate()[kind]))
    for values in (found.frame, found.panel, found.maps):
        assert np.isfinite(values).all()


@given(
    st.integers(2, 9), st.integers(4, 40), st.sampled_from([1, 30, 32_000]), st.integers(0, 2**32)
)
@settings(max_examples=40, deadline=None)
def test_features_are_finite_for_random_points(n_frames, count, range_px, seed):
    rng = np.random.default_rng(seed)
    found = extract(batch_of(rng.integers(0, range_px, (2, n_frames, count)).astype(np.int16)))
    assert all(np.isfinite(v).all() for v in (found.frame, found.panel, found.maps))


def test_an_empty_batch_has_no_features(panels):
    batch = batch_of(panels[0])
    empty = PanelBatch(
        *(
            getattr(batch, n)[:0]
            for n in ("number", "points", "n_points", "fps", "metres_per_pixel")
        )
    )
    assert extract(empty).maps.shape == (0, len(names("map")), 60, 64)


@pytest.mark.parametrize(
    ("argument", "change"),
    [
        ("n_frames", {"points": np.zeros((1, 2, 1, 20), np.int16)}),
        ("n_points", {"n_points": np.array([3], np.int32)}),
        ("n_points", {"n_points": np.array([21], np.int32)}),
        ("fps", {"fps": np.array([0.0])}),
        ("fps", {"fps": np.array([np.nan])}),
        ("metres_per_pixel", {"metres_per_pixel": np.array([-1.0])}),
    ],
)
def test_bad_argument_is_named(argument, change):
    good = vars(batch_of(np.zeros((2, 5, 20), np.int16)))
    with pytest.raises(ValueError, match=f"^{argument}: "):
        extract(PanelBatch(**(good | change)))


@pytest.mark.parametrize(
    ("option", "change"),
    [
        ("--places", {"places": 39}),
        ("--curvature-window-places", {"curvature_window_places": 4}),
        ("--time-window-frames", {"time_window_frames": 1}),
        ("--change-window-frames", {"change_window_frames": 0}),
        ("--nominal-thickness-um", {"nominal_thickness_um": 0.0}),
    ],
)
def test_bad_option_is_named(option, change):
    with pytest.raises(InputError, match=f"^{option}: "):
        FeatureConfig(**change)
