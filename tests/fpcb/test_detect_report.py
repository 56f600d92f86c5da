"""The report of a detection run: right about its numbers, safe with any text, whole in parts."""

import json
import re
from functools import cache

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from browser import SCRIPTS, ran, without_policy
from page import Page

from cluster.errors import InputError
from cluster.storage import Store
from pipelines.fpcb.detect_report.curves import LINES, roc_figure, score_figure
from pipelines.fpcb.detect_report.figures import error_figures, errors
from pipelines.fpcb.detect_report.page import write_detect_report
from pipelines.fpcb.detect_report.pictures import MOST_PICTURES, map_figure, seen_panels
from pipelines.fpcb.detect_report.tables import listed_panels, tied, write_area
from pipelines.fpcb.detect_report.verdicts import verdicts
from pipelines.fpcb.evaluation.ensemble import learn_ensemble
from pipelines.fpcb.evaluation.tables import curves, evaluate
from pipelines.fpcb.evaluation.thresholds import for_false_alarms
from pipelines.fpcb.synthesis.config import GenerateConfig
from pipelines.fpcb.synthesis.generator import generate

PLACES, FRAMES = 48, 24
MEMBERS = ("dream", "patchcore")
SCENARIOS = (("normal", 0, 60), ("thick_panel", 0, 20), ("crack", 1, 12), ("pre_damage", 1, 8))
HOSTILE = [
    *SCRIPTS[:3],
    "<a href='https://evil.example'>x</a> %{y} $x$",
]


def panels(seed=0, gap=3.0, splits=("val", "test")):
    """Rows of scores before any decision; cracked panels score ``gap`` higher."""
    rng = np.random.default_rng(seed)
    rows = [
        {"split": split, "scenario": scenario, "label": label}
        for split in splits
        for scenario, label, count in SCENARIOS
        for _ in range(count)
    ]
    table = pd.DataFrame(rows)
    n, bad = len(table), (table["label"] == 1).to_numpy()
    table["number"] = np.arange(n)
    table["name"] = [HOSTILE[k % len(HOSTILE)] for k in range(n)]
    table["n_frames"] = FRAMES
    crack = np.where(bad, rng.integers(5, FRAMES - 5, n), np.nan)
    table["crack_frame"] = crack
    table["damage_frame"] = np.where(table["scenario"] == "pre_damage", 0.0, crack)
    table["crack_place"] = np.where(bad, rng.uniform(0.2, 0.8, n), np.nan)
    table["severity"] = np.where(bad, rng.uniform(0.5, 1.5, n), np.nan)
    table["hinge_deg"] = 4 * table["severity"]
    for k, name in enumerate((*MEMBERS, "best_feature", "mahalanobis")):
        table[name] = rng.normal(size=n) + (gap - 0.5 * k) * bad
    table["found_frame"] = np.where(bad, table["damage_frame"] + 1, 7.0)
    table["found_earliest"] = table["found_frame"] - 2
    table["found_latest"] = table["found_frame"] + 1
    table["found_place"] = np.where(bad, table["crack_place"] + 0.01, 0.5)
    table["found_kink_deg"] = 2.5
    return table


def decided(table, members=MEMBERS):
    """Add the ensemble's verdict; returns rows, ensemble and thresholds."""
    val = table[(table["split"] == "val") & table["label"].notna()]
    ensemble = learn_ensemble(val["label"], val[[*members]], members)
    table = table.assign(
        ensemble=ensemble.score(table[[*members]]), sure=ensemble.probability(table[[*members]])
    )
    val = table.loc[val.index]
    names = [*members, "ensemble", "best_feature", "mahalanobis"]
    thresholds = {name: for_false_alarms(val["label"], val[name], 0.05) for name in names}
    return (
        table.assign(called_ng=thresholds["ensemble"].calls(table["ensemble"])),
        ensemble,
        thresholds,
    )


@cache
def usual():
    """Rows as they usually are; callers leave them alone."""
    return decided(panels())


def measured(table, ensemble, thresholds, split="test"):
    """Metrics as a run writes them."""
    scores = pa.Table.from_pandas(table, preserve_index=False)
    return {
        "test": evaluate(scores, thresholds, split=split, replicas=40),
        "curves": curves(scores, split=split),
        "decision": {
            "ensemble": ensemble.to_dict(),
            "thresholds": {name: one.to_dict() for name, one in thresholds.items()},
        },
        "stages": [
            {"name": "train DREAM", "seconds": 61.0, "cpu_seconds": 99.0, "peak_gib": 1.5,
             "largest_worker_gib": 0.5, "reused": True},
        ],
        "total_seconds": 75.0,
        "peak_gib": 1.5,
        "training": {"epoch": 1, "loss": 0.1, "val_loss": 0.2, "val_ap": 0.875},
        "memory": {"size": 120, "patches": 12_000, "radius": 2.5, "kind": "flat"},
        "data": {"n_panels": 200, "counts": {"test/normal": 60, "val/normal": 60}, "digest": "ab"},
    }  # fmt: skip


def pictures(table, reasons):
    """Pictures of panels of the test split, with points from the generator."""
    number = np.array([*reasons])
    rng = np.random.default_rng(1)
    batch, _ = generate(GenerateConfig(panels=1000, frames=FRAMES), number)
    shape = (len(number), FRAMES, PLACES)
    signed = {name: rng.normal(size=shape).astype(np.float32) for name in ("excess", "evidence")}
    return {
        "number": number,
        "reason": np.array([*reasons.values()]),
        **signed,
        **{name: rng.random(shape).astype(np.float32) for name in MEMBERS},
        "points": batch.points,
        "n_points": batch.n_points,
        "fps": batch.fps,
    }


HISTORY = [
    {"epoch": k, "loss": 0.2 / (k + 1), "val_loss": 0.3 / (k + 1), "val_ap": 0.8, "panels_per_s": 9}
    for k in range(2)
]


def write_run(folder, table, metrics, drawn=None, history=HISTORY):
    run = Store(folder)
    run.write_json("metrics.json", metrics)
    run.write_json("config.json", {"features": {"places": 64}, "versions": {"numpy": "2"}})
    run.write_table("scores.parquet", pa.Table.from_pandas(table, preserve_index=False))
    if history is not None:
        run.write_json("training.json", history)
    if drawn is not None:
        run.write_arrays("pictures.npz", **drawn)
    return run


def page_of(run):
    uri = write_detect_report(run)
    assert uri == f"{run.uri}/report.html"
    page = Page(run.read_bytes("report.html").decode())
    assert len(page.scripts) == 2
    assert not re.search(r"\b(nan|None|Undefined|inf)\b", page.text)
    for figure in page.figures:
        json.loads(figure)
    return page


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    table, ensemble, thresholds = usual()
    metrics = measured(table, ensemble, thresholds)
    test = table[table["split"] == "test"]
    wrong = test[test["called_ng"] != (test["label"] == 1)]
    found = test[(test["label"] == 1) & test["called_ng"]].iloc[0]
    reasons = {int(wrong.iloc[0]["number"]): HOSTILE[0], int(found["number"]): "found"}
    drawn = pictures(table, reasons)
    run = write_run(tmp_path_factory.mktemp("whole"), table, metrics, drawn)
    return table, metrics, drawn, page_of(run), run


def test_script_in_a_name_does_not_run_in_a_browser(whole, tmp_path):
    *_, run = whole
    html = run.read_bytes("report.html").decode()
    assert ran(without_policy(html), tmp_path) == (False, True)


def test_report_says_what_the_metrics_say(whole):
    table, metrics, _, page, _ = whole
    test = metrics["test"]
    confusion = test["detectors"]["ensemble"]["confusion"]
    assert f"{confusion['tp']} of {test['panels']['n_bad']}" in page.text
    assert f"{confusion['fp']} of {test['panels']['n_good']}" in page.text
    assert confusion["tp"] == int((table["called_ng"] & (table["label"] == 1))[100:].sum())
    for one in test["detectors"].values():
        for measures in one["cracked"].values():
            for estimate in measures.values():
                assert write_area(estimate["value"]) in page.text
    assert "1 frame" in page.text
    assert "1 frames" not in page.text
    assert "1.00 %" in page.text  # median error of the place
    for name in ("DREAM", "PatchCore", "best single feature", "Mahalanobis distance"):
        assert name in page.text
    assert "1 min 01 s" in page.text
    assert "reused" in page.text
    assert "120 patches chosen of 12,000" in page.text
    assert "kept is epoch 1" in page.text


def test_report_runs_no_text_of_the_data(whole):
    _, _, _, page, _ = whole
    assert page.all("img") == page.all("svg") == []
    assert not any(name.startswith("on") for _, attrs in page.elements for name in attrs)
    assert all(attrs["href"].startswith("#") for attrs in page.all("a"))
    assert page.text.count(HOSTILE[0]) >= 2  # why a picture is shown, on paper and on screen
    assert any(page.text.count(text) for text in HOSTILE[1:])


def test_report_needs_no_network(whole):
    _, _, _, page, run = whole
    assert not page.all("link")[1:]
    assert not any("src" in attrs for _, attrs in page.elements)
    assert run.size("report.html") < 8e6


def test_pictures_are_stepped_and_mapped(whole):
    _, _, drawn, page, _ = whole
    figures = [json.loads(figure) for figure in page.figures]
    stepped = [f for f in figures if "frames" in f]
    maps = [f for f in figures if f["data"][0]["type"] == "heatmap"]
    assert len(stepped) == len(drawn["number"])
    assert len(maps) == 4 * len(drawn["number"])
    assert {s["id"] for s in page.all("section")} == {f"panel-{k}" for k in drawn["number"]}


def test_map_marks_truth_and_what_was_found(whole):
    table, _, drawn, _, _ = whole
    seen = seen_panels(drawn, table)[1]
    row = table.set_index("number").loc[seen.number]
    figure = map_figure(seen, "evidence")
    truth, found = figure.data[1:]
    assert (truth.x[0], truth.y[0]) == (row["damage_frame"], row["crack_place"])
    assert (found.x[0], found.y[0]) == (row["found_frame"], row["found_place"])
    assert (found.error_x.arrayminus[0], found.error_x.array[0]) == (2, 1)


def test_map_has_nothing_found_when_a_panel_is_passed(whole):
    table, _, drawn, _, _ = whole
    passed = table.assign(called_ng=False)
    seen = seen_panels(drawn, passed)[1]
    assert len(map_figure(seen, "evidence").data) == 2


def test_map_is_over_the_panels_own_frames_when_resampled(whole):
    table, _, drawn, _, _ = whole
    longer = table.assign(n_frames=2 * FRAMES - 1)
    figure = map_figure(seen_panels(drawn, longer)[0], "dream")
    assert figure.data[0].x[-1] == 2 * FRAMES - 2


def test_map_of_log_odds_is_light_where_a_crack_is_unlikely(whole):
    table, _, drawn, _, _ = whole
    odds = drawn["dream"] - 20
    odds[:, 10:, 20:24] = 5.0
    heat = map_figure(seen_panels({**drawn, "dream": odds}, table)[0], "dream").data[0]
    assert heat.colorscale[0][1] == "#f4f4f2"
    assert heat.zmin == pytest.approx(-20, abs=0.1)
    assert heat.zmax == pytest.approx(5)


def test_pictures_are_limited(whole):
    table, _, drawn, _, _ = whole
    many = {"number": table["number"].to_numpy(), "reason": np.full(len(table), "found")}
    many["excess"] = np.zeros((len(table), 3, 4))
    assert len(seen_panels(many, table)) == MOST_PICTURES
    assert seen_panels({**drawn, "number": np.array([-1, -2])}, table) == []


def test_misses_are_listed_worst_first():
    table, _, _ = decided(panels(gap=1.0))
    test = table[table["split"] == "test"]
    rows = listed_panels(test, "ensemble", "missed")
    missed = test[(test["label"] == 1) & ~test["called_ng"]]
    assert rows[0]["number"] == missed["number"].loc[missed["ensemble"].idxmin()]
    assert {row["number"] for row in rows} <= {*missed["number"]}
    assert [row["score"] for row in rows] == sorted(row["score"] for row in rows)


def test_easy_panels_are_said_to_be_so(tmp_path):
    table, ensemble, thresholds = decided(panels(gap=30.0))
    metrics = measured(table, ensemble, thresholds)
    assert tied(metrics["test"]) == ["crack", "pre_damage"]
    page = page_of(write_run(tmp_path, table, metrics))
    assert "too easy" in page.text
    assert "There are no misses" in page.text
    assert "20 of 20" in page.text


def test_threshold_that_breaks_its_promise_is_pointed_out():
    table, ensemble, thresholds = usual()
    shifted = table.copy()
    good = (shifted["split"] == "test") & (shifted["label"] == 0)
    shifted.loc[good, "ensemble"] += 10.0
    shifted["called_ng"] = thresholds["ensemble"].calls(shifted["ensemble"])
    kept = {c.name: c.sound for c in verdicts(measured(table, ensemble, thresholds))}
    broken = {c.name: c.sound for c in verdicts(measured(shifted, ensemble, thresholds))}
    assert kept["Threshold"] is True
    assert broken["Threshold"] is False


def without(metrics, *names):
    return {k: v for k, v in metrics.items() if k not in names}


def test_report_is_whole_without_training_and_pictures(whole, tmp_path):
    table, metrics, _, _, _ = whole
    metrics = without(metrics, "training", "stages", "data", "curves") | {"memory": None}
    drawn = {"number": np.array([], np.int64), "reason": np.array([], "U1")}
    page = page_of(write_run(tmp_path, table, metrics, drawn, history=None))
    assert "No training of DREAM was recorded." in page.text
    assert "No panel was kept to be drawn." in page.text
    assert "No stage was measured." in page.text


def test_report_is_whole_when_points_are_missing_and_numbers_are_nan(whole, tmp_path):
    table, metrics, drawn, _, _ = whole
    metrics = json.loads(json.dumps(metrics))
    area = metrics["test"]["detectors"]["dream"]["cracked"]["crack"]["pr_auc"]
    area.update(value=float("nan"), low=None, high=None)
    history = [{**one, "val_loss": float("nan"), "val_ap": None} for one in HISTORY]
    drawn = {k: v for k, v in drawn.items() if k not in ("points", "n_points", "fps", "dream")}
    drawn["excess"] = np.full_like(drawn["excess"], np.nan)
    page = page_of(write_run(tmp_path, table, metrics, drawn, history))
    assert "DREAM, over 2 epochs" in page.text
    figures = [json.loads(figure) for figure in page.figures]
    assert not any("frames" in figure for figure in figures)
    assert sum(f["data"][0]["type"] == "heatmap" for f in figures) == 3 * len(drawn["number"])


def test_report_of_one_detector(tmp_path):
    table, ensemble, thresholds = decided(panels().drop(columns="patchcore"), ("dream",))
    page = page_of(write_run(tmp_path, table, measured(table, ensemble, thresholds)))
    assert "The ensemble has one member, DREAM" in page.text
    assert "Not trained: patchcore" in page.text


def test_report_of_good_panels_alone(tmp_path):
    table = panels()
    table = table[table["label"] == 0].drop(columns=["crack_frame", "hinge_deg"])
    table, ensemble, thresholds = decided(table)
    page = page_of(write_run(tmp_path, table, measured(table, ensemble, thresholds)))
    assert ensemble.kind == "maximum"
    assert "no cracked panels in the test split" in page.text
    assert "No panel is known to be cracked." in page.text


@pytest.mark.parametrize("case", ["no labels", "no test split", "no rows"])
def test_report_without_labelled_test_panels(case, tmp_path):
    table, ensemble, thresholds = usual()
    metrics = measured(table, ensemble, thresholds)
    metrics = without(metrics, "test", "curves") | {"val": metrics["test"]}
    if case == "no labels":
        table = table.assign(label=pd.array([None] * len(table), dtype="Int8"))
    elif case == "no test split":
        table = table[table["split"] == "val"]
    else:
        table = table[:0]
    page = page_of(write_run(tmp_path, table, metrics))
    assert "no labelled panels in the test split" in page.text
    expected = {"no labels": 100, "no test split": 0, "no rows": 0}[case]
    assert f"{expected}" in page.text
    assert "The same on validation panels" in page.text


def test_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(InputError, match="no finished run"):
        write_detect_report(Store(tmp_path))


def test_torn_scores_are_refused(whole, tmp_path):
    table, metrics, _, _, _ = whole
    run = write_run(tmp_path, table, metrics)
    run.write_bytes("scores.parquet", b"PAR1 torn")
    with pytest.raises(InputError, match="damaged"):
        write_detect_report(run)


def test_errors_are_found_less_true():
    table, _, _ = usual()
    test = table[table["split"] == "test"]
    found = errors(test)
    assert len(found) == int((test["called_ng"] & (test["label"] == 1)).sum())
    np.testing.assert_allclose(found["off_frames"], 1.0)
    np.testing.assert_allclose(found["off_place"], 0.01)


def test_histogram_counts_every_panel_when_errors_are_large():
    table, _, _ = decided(panels(gap=30.0))
    far = table.assign(found_frame=np.where(table["number"] % 2, 1e4, -1e4), found_place=0.99)
    figures = error_figures(errors(far))
    filmed = int((far["scenario"] == "crack").sum())
    assert sum(figures["frame"].data[0].y) == filmed
    counts = np.asarray(figures["frame"].data[0].y)
    assert counts[0] + counts[-1] == filmed
    assert sum(figures["place"].data[0].y) == int((far["label"] == 1).sum())


def test_roc_is_drawn_from_no_false_alarms_on():
    rng = np.random.default_rng(0)
    label = np.repeat([0, 1], 50)
    scores = pa.table({
        "split": ["test"] * 100, "scenario": ["x"] * 100, "label": label,
        "ensemble": rng.normal(size=100) + label,
    })  # fmt: skip
    found = {"ensemble": curves(scores)["ensemble"]["x"]}
    line = roc_figure(found, 50).data[-1]
    assert line.x.min() == pytest.approx(0.01)  # half a panel stands for none on a log axis
    assert line.x.max() == line.y.max() == 1
    assert line.line.color == LINES["ensemble"]["color"]


def test_scores_on_the_wrong_side_are_dots():
    table, _, thresholds = decided(panels(gap=1.0))
    test = table[table["split"] == "test"]
    for name in ("ensemble", "mahalanobis"):
        figure = score_figure(test, name, thresholds[name].value)
        dots = [trace for trace in figure.data if trace.type == "scatter"]
        wrong = thresholds[name].calls(test[name]) != (test["label"] == 1)
        drawn = {int(number) for trace in dots for number, _ in trace.customdata}
        assert drawn == {*test["number"][wrong]}


def test_area_below_one_never_reads_one():
    assert write_area(1.0) == "1.000"
    assert write_area(0.99977) == "0.9998"
    assert write_area(0.999999) == ">0.9999"
    assert write_area(0.12345) == "0.123"
    assert write_area(None) == write_area(float("nan")) == "–"


def test_options_are_listed(whole):
    _, _, _, page, run = whole
    config = run.read_json("config.json")
    assert all(name in page.text for stage in config.values() for name in stage)
