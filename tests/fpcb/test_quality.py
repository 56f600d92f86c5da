"""The quality report: complete, bounded, safe with any text, and right about what it warns of."""

import json
import re
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv as pc
import pytest
from browser import SCRIPTS, ran, without_policy
from command import tenfold
from page import Page
from sklearn.metrics import roc_auc_score

from cluster.errors import InputError
from cluster.manifest import Entry, Manifest
from cluster.storage import Store
from pipelines.fpcb.bundles.folders import Reject, rejects_table
from pipelines.fpcb.bundles.labels import LABEL_FIELDS
from pipelines.fpcb.dataset import FEATURES, PANELS, REJECTS, by_group, describe, file_name
from pipelines.fpcb.dataset import summary_of as summary
from pipelines.fpcb.features.extraction import FeatureConfig
from pipelines.fpcb.features.table import FEATURE_VERSION, names
from pipelines.fpcb.generate import plan_blocks
from pipelines.fpcb.make_features import write_features, write_fused
from pipelines.fpcb.panel_table import to_table, write_panels
from pipelines.fpcb.panels import PanelBatch
from pipelines.fpcb.quality import data as rows_read
from pipelines.fpcb.quality.checks import (
    aliased,
    areas,
    best_features,
    cracks_show_early,
    cues,
    early_areas,
    nuisance_areas,
)
from pipelines.fpcb.quality.data import Rows, measured_rows, open_any, read_rows
from pipelines.fpcb.quality.page import gather, judge, write_quality
from pipelines.fpcb.quality.pictures import MOST_STEPS, Picture, stepped_panel
from pipelines.fpcb.quality.verdicts import checks
from pipelines.fpcb.synthesis.config import COMPATIBILITY, GenerateConfig
from pipelines.fpcb.synthesis.generator import generate

SMALL = GenerateConfig(panels=110, frames=24, seed=3)
HOSTILE = [
    *SCRIPTS[:3],
    "<a href='https://evil.example'>x</a> %{y} $x$",
]


def entries(store, written):
    return tuple(
        Entry(
            key=str(i),
            fingerprint="test",
            files={name: (store.size(name), store.checksum(name)) for name in one["files"]},
            summary=one,
        )
        for i, one in enumerate(written)
    )


def finish(store, part, written, **more):
    return describe(store, part, Manifest(store / part, entries(store / part, written)), more)


def generated(folder, config):
    """A data set of features alone, as the fused command writes it."""
    store = Store(folder)
    written = [
        write_fused(block, store / FEATURES, panels=config, config=FeatureConfig())
        for block in plan_blocks(config, 1000)
    ]
    more = {"generator": asdict(config), "feature_version": FEATURE_VERSION}
    return finish(store, FEATURES, written, **more, features_of=asdict(FeatureConfig()))


def measured_by_camera(folder, tables, features=False, **more):
    """A data set of points as an import writes it, and its features when asked for."""
    store = Store(folder)
    written = []
    for index, table in enumerate(tables):
        for split, scenario, part in by_group(table):
            name = file_name(split, scenario, index)
            write_panels(store / PANELS, name, part)
            written.append(summary(part.select(["split", "scenario"]), [name], ["0"]))
    data = finish(store, PANELS, written, source=["bundles"], **more)
    if features:
        written = [
            write_features(name, store / FEATURES, panels=store, config=FeatureConfig())
            for name in data.files(PANELS)
        ]
        data = finish(store, FEATURES, written, source=["bundles"])
    return data


def bundles(numbers, called=None, first=0, split=None, shift_px=0):
    """Rows of panels that know what a bundle's metadata says, and no more."""
    batch, truth = generate(SMALL, numbers)
    number = first + np.arange(len(batch))
    batch = PanelBatch(
        number, batch.points + np.int16(shift_px), batch.n_points, batch.fps, batch.metres_per_pixel
    )
    known = {
        "number": pa.array(number),
        "name": pa.array(called or [f"bundle-{i}" for i in number]),
        "scenario": truth["scenario"],
        "label": truth["label"],
        "split": pa.array([split] * len(number)) if split else truth["split"],
        "crack_frame": truth["crack_frame"],
        "metadata": pa.nulls(len(number), LABEL_FIELDS.field("metadata").type),
    }
    return to_table(batch, pa.table(known))


@pytest.fixture(scope="module")
def fused(tmp_path_factory):
    return generated(tmp_path_factory.mktemp("fused"), SMALL)


@pytest.fixture(scope="module")
def fused_report(fused):
    outcome = tenfold("fpcb", "report", fused.store.uri, "--json")
    assert outcome.code == 0, outcome.err
    return outcome.json, Page(fused.store.read_bytes("quality.html").decode())


@pytest.fixture(scope="module")
def hostile_report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("imported")
    rejects = [Reject(text, text, 3, text, text) for text in HOSTILE]
    tables = [bundles(np.arange(4), HOSTILE), bundles(np.arange(4), HOSTILE[::-1], 4, split="val")]
    data = measured_by_camera(folder, tables, rejected=len(rejects))
    with data.store.open_output(REJECTS) as sink:
        pc.write_csv(rejects_table(rejects), sink)
    numbers = write_quality(str(folder))
    return numbers, Page(data.store.read_bytes("quality.html").decode())


def test_report_of_generated_features_draws_every_scenario(fused_report):
    numbers, page = fused_report
    there = {name.split("/")[1] for name in numbers["counts"]}
    assert {s["id"] for s in page.all("section")} == {
        f"scenario-{name.replace('_', '-')}" for name in there
    }
    stepped = [f for f in map(json.loads, page.figures) if "frames" in f]
    assert len(stepped) == len(there)
    assert all(len(figure["frames"]) == SMALL.frames for figure in stepped)
    maps = [f for f in map(json.loads, page.figures) if f["data"][0]["type"] == "heatmap"]
    assert {len(f["data"]) for f in maps if "coloraxis4" in f["layout"]} == {4, 8}


def test_report_says_what_is_in_the_data_set(fused_report, fused):
    numbers, page = fused_report
    assert sum(numbers["counts"].values()) == numbers["panels"] == 110
    assert numbers["digests"] == {"features": fused.about[FEATURES]["digest"]}
    assert numbers["bytes"] == sum(fused.store.size(name) for name in fused.files(FEATURES))
    for word in (fused.about[FEATURES]["digest"], FEATURE_VERSION, "Nothing was left out", "90"):
        assert word in page.text
    assert not re.search(r"\b(nan|None)\b", page.text)


def test_report_refers_to_nothing_outside_itself(fused_report):
    _, page = fused_report
    assert len(page.scripts) == 2
    for _, attrs in page.elements:
        for name in ("src", "href", "action", "data", "srcset"):
            assert re.match(r"(#|data:)", attrs.get(name) or "#")


def test_generated_panels_are_made_again_the_same(fused_report):
    numbers, _ = fused_report
    assert numbers["made_again"]["same"] == numbers["made_again"]["of"] == 7
    assert numbers["differ_before_the_crack"]["differ"] == 0


def test_features_of_another_generator_are_noticed(tmp_path):
    config = replace(SMALL, panels=30)
    data = generated(tmp_path, config)
    other = {"generator": asdict(replace(config, noise=2.0))}
    data.store.write_json("data.json", {**data.about, **other})
    again = judge(gather(open_any(str(tmp_path))))["made_again"]
    assert again["same"] < again["of"]


def test_hostile_names_and_rejects_are_inert(hostile_report):
    numbers, page = hostile_report
    assert numbers["rejected"] == numbers["duplicates"]["panels"] == 4
    assert len(page.scripts) == 2
    assert page.all("img") == page.all("svg") == []
    assert not any(name.startswith("on") for _, attrs in page.elements for name in attrs)
    assert all(attrs["href"].startswith("#") for attrs in page.all("a"))
    for text in HOSTILE:
        assert page.text.count(text) >= 3  # as a duplicate, a reject and its reason
    labels = json.dumps([json.loads(figure) for figure in page.figures])
    assert "hostile" not in labels
    assert "evil" not in labels


def test_script_in_a_bundle_does_not_run_in_a_browser(hostile_report, tmp_path):
    numbers, _ = hostile_report
    html = Path(numbers["report"]).read_text()
    assert ran(without_policy(html), tmp_path) == (False, True)


def test_bundles_have_no_good_panels_beside_them(hostile_report):
    numbers, page = hostile_report
    assert numbers["seed"] is None
    assert numbers["made_again"] is None
    maps = [f for f in map(json.loads, page.figures) if "coloraxis4" in f["layout"]]
    assert maps
    assert all(len(figure["data"]) == 4 for figure in maps)


@pytest.mark.parametrize("features", [False, True])
def test_repeated_panels_are_found_across_files_and_splits(tmp_path, features):
    tables = [
        bundles(np.arange(10), split="train"),
        bundles([3, 20], first=10, split="train"),
        bundles([5], first=12, split="test"),
    ]
    _, found = read_rows(measured_by_camera(tmp_path, tables, features))
    assert [[panel[0] for panel in group] for group in found.groups] == [[3, 10], [5, 12]]
    assert (found.compared, found.panels, found.across_splits) == (13, 2, 1)


def test_copy_elsewhere_in_the_image_has_equal_features(tmp_path):
    tables = [bundles([1, 2]), bundles([2], first=2, shift_px=5)]
    by_points = read_rows(measured_by_camera(tmp_path / "points", tables))[1]
    by_features = read_rows(measured_by_camera(tmp_path / "features", tables, True))[1]
    assert (by_points.panels, by_features.panels) == (0, 1)


def test_all_panels_are_compared_when_few_are_kept(fused, monkeypatch):
    monkeypatch.setattr(rows_read, "KEPT_PANELS", 1)
    monkeypatch.setattr(rows_read, "_BATCH", 3)
    rows, found = read_rows(fused)
    assert len(rows) <= len(fused.files(FEATURES)) * 100
    assert found.compared == 110


def test_comparing_points_stops_at_its_limit_and_says_so(tmp_path, monkeypatch):
    data = measured_by_camera(tmp_path, [bundles(np.arange(20))])
    monkeypatch.setattr(rows_read, "COMPARED_PANELS", 5)
    _, found = read_rows(data)
    assert 5 <= found.compared < 20
    verdict = {c.name: c for c in checks(judge(gather(data)))}["Duplicates"]
    assert verdict.sound is None
    assert "of 20 panels compared" in verdict.text


def drawn(n_bad, n_good, shift=0.0, spread=1.0, seed=0):
    """Rows of noise for every feature, and a nuisance that cracked panels have differently."""
    random = np.random.default_rng(seed)
    label = np.repeat([1.0, 0.0], [n_bad, n_good])
    noise_px = random.normal(size=n_bad + n_good) * np.where(label == 1, spread, 1.0)
    known = pd.DataFrame(
        {
            "label": label,
            "scenario": np.where(label == 1, "crack", "normal"),
            "noise_px": noise_px + shift * label,
            "n_points": random.integers(200, 260, label.size),
        }
    )
    values = random.normal(size=(label.size, len(names("panel")))).astype(np.float32)
    return Rows(known, values)


def test_areas_are_those_of_scikit_learn_with_ties():
    random = np.random.default_rng(1)
    bad, good = random.integers(2, 9, (30, 4)), random.integers(0, 7, (50, 4))
    label = np.repeat([1, 0], [30, 50])
    expected = [roc_auc_score(label, np.concatenate([bad[:, k], good[:, k]])) for k in range(4)]
    np.testing.assert_allclose(areas(bad, good), expected)


def test_best_of_many_features_that_tell_nothing_is_measured_at_chance():
    found = [best_features(drawn(60, 200, seed=seed))[0] for seed in range(12)]
    mean = np.mean([one.auc for one in found])
    assert abs(mean - 0.5) < 3 * found[0].std_error / np.sqrt(len(found))
    assert all(0.01 < one.std_error < 0.1 for one in found)


def test_best_feature_is_the_planted_one_and_its_sign():
    rows = drawn(60, 200)
    rows.values[:60, names("panel").index("bend_end_deg")] -= 2.0
    (one,) = best_features(rows)
    assert (one.feature, one.sign) == ("bend_end_deg", -1)
    expected = 0.921  # P(N(2, 1) > N(0, 1)) = Φ(√2)
    assert abs(one.auc - expected) < 3 * one.std_error


@pytest.mark.parametrize("planted", [{"shift": 1.0}, {"spread": 0.1}])
def test_nuisance_that_gives_cracks_away_is_named(planted):
    (one,) = nuisance_areas(drawn(150, 400, **planted))
    assert one.gives_away
    assert one.feature.startswith("noise_px")
    assert ("distance" in one.feature) == ("spread" in planted)


def test_nuisances_of_no_meaning_raise_no_alarm():
    alarms = [nuisance_areas(drawn(40, 120, seed=seed))[0].gives_away for seed in range(40)]
    assert sum(alarms) <= 1


def test_too_few_panels_are_not_judged():
    assert best_features(drawn(7, 100)) == []
    assert nuisance_areas(drawn(7, 100)) == []
    assert nuisance_areas(drawn(100, 7)) == []


@pytest.mark.parametrize(("options", "gives_away"), [({}, False), (COMPATIBILITY, True)])
def test_frames_before_the_crack_give_a_panel_away_only_in_the_compatibility_mode(
    options, gives_away
):
    config = GenerateConfig(panels=240, seed=4, **options)
    cracked = replace(config, scenario="crack")
    good, bad = np.arange(120), np.arange(120, 240)
    panels = {
        "normal": [generate(replace(config, scenario="normal"), good)],
        "crack": [generate(cracked, bad)],
    }
    _, frames = measured_rows(panels, FeatureConfig())
    (one,) = early_areas(frames, config, FeatureConfig().reach_frames)
    assert one.gives_away == gives_away
    differ, of = cracks_show_early(cracked, bad[:5])
    assert (differ > 0, of) == (gives_away, 5)


@pytest.mark.parametrize(("frequency_hz", "fps"), [(25, 30), (20, 30), (12, 30), (47.5, 20)])
def test_aliased_swing_is_the_same_in_every_frame(frequency_hz, fps):
    seconds = np.arange(50) / fps
    shown = np.sin(2 * np.pi * aliased(frequency_hz, fps) * seconds)
    swing = np.sin(2 * np.pi * frequency_hz * seconds)
    assert min(np.abs(shown - swing).max(), np.abs(shown + swing).max()) < 1e-9
    assert aliased(frequency_hz, fps) <= fps / 2


def test_shake_is_seen_by_a_faster_and_finer_camera_only():
    rows = drawn(10, 10)
    slow = GenerateConfig()
    (seen,) = cues(slow, rows)
    assert (seen["nyquist_hz"], seen["seen_hz"], seen["visible"]) == (15, 5, False)
    assert cues(replace(slow, fps=200.0), rows)[0]["visible"] is False
    fine = replace(slow, fps=200.0, px_per_mm=40.0, width_px=8000, height_px=6000)
    (seen,) = cues(fine, rows)
    assert seen["visible"]
    assert 0.5 < seen["peak_px"] < 2.0


def test_uneven_splits_are_named(fused_report):
    numbers, _ = fused_report
    assert checks(numbers)[0].sound
    moved = dict(numbers["counts"])
    moved["test/normal"] += 9
    moved["train/normal"] -= 9
    assert not checks({**numbers, "counts": moved})[0].sound
    unknown = {"unknown/normal": 4}
    assert checks({**numbers, "counts": unknown})[0].sound is None


def picture(batch, crack_frame):
    return Picture(
        scenario="crack",
        title="",
        bad=True,
        panel=batch,
        twin=None,
        crack_frame=crack_frame,
        damage_frame=crack_frame,
        crack_place=0.5,
        config=FeatureConfig(),
    )


def test_crack_is_marked_on_its_place_from_its_frame_on():
    batch, truth = generate(replace(SMALL, scenario="crack"), [8])
    crack = truth["crack_frame"][0].as_py()
    figure, frames = stepped_panel(picture(batch, crack))
    marks = [figure.data[at].name for at in frames[0]["traces"]]
    at = marks.index("crack")
    shown = [frame["data"][at] for frame in frames]
    middle = round(0.5 * (int(batch.n_points[0]) - 1))
    for number, mark in enumerate(shown):
        expected = batch.points[0, :, number, middle] if number >= crack else []
        assert [*mark["x"], *mark["y"]] == [*expected]


def test_long_recording_of_many_points_is_thinned():
    batch, _ = generate(replace(SMALL, frames=700, scenario="crack"), [8])
    dense = np.repeat(batch.points, 6, axis=3)
    dense = PanelBatch(batch.number, dense, batch.n_points * 6, batch.fps, batch.metres_per_pixel)
    _, frames = stepped_panel(picture(dense, 333))
    assert len(frames) <= MOST_STEPS + 3
    assert "333" in {frame["name"] for frame in frames}
    assert max(len(part["x"]) for frame in frames for part in frame["data"]) <= 400


def test_command_prints_the_verdicts_and_where_the_report_is(tmp_path):
    measured_by_camera(tmp_path, [bundles(np.arange(3))])
    outcome = tenfold("fpcb", "report", tmp_path)
    assert outcome.code == 0, outcome.err
    assert outcome.out.splitlines()[-1] == f"report: {tmp_path}/quality.html"
    assert (tmp_path / "quality.html").is_file()
    assert "sound  Duplicates: No two have equal points; 3 of 3" in outcome.out


def test_unfinished_or_damaged_data_sets_are_refused(tmp_path):
    assert tenfold("fpcb", "report", tmp_path).code == 2
    data = measured_by_camera(tmp_path, [bundles(np.arange(5))], features=True)
    file = tmp_path / data.files(FEATURES)[0]
    file.write_bytes(b"PAR1 torn")
    with pytest.raises(InputError, match=file.name):
        write_quality(str(tmp_path))
    file.unlink()
    with pytest.raises(InputError, match=file.name):
        write_quality(str(tmp_path))
