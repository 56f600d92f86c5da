"""The whole job on the cluster: train, score, run; found again, resumed, and refused in words."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from command import tenfold

ROOT = Path(__file__).parents[2]
PANELS = ("--panels", 500, "--frames", 40, "--seed", 3)
LIGHT = ("--epochs", 1, "--workers", 1, "--width", 4, "--batch-size", 64, "--coreset-share", 0.1)


WITHOUT_TORCH = """
import sys
class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "torch":
            raise ModuleNotFoundError("No module named 'torch'", name="torch")
sys.meta_path.insert(0, NoTorch())
from pipelines.cli import main
main()
"""


def done(*options):
    outcome = tenfold("fpcb", *options, "--json")
    assert outcome.code == 0, outcome.err
    return outcome.json


def refused(*options):
    outcome = tenfold("fpcb", *options)
    assert outcome.code == 2, outcome.err
    assert "Traceback" not in outcome.err
    return outcome.err


@pytest.fixture(scope="module")
def whole(cluster, tmp_path_factory):
    out = tmp_path_factory.mktemp("job") / "run"
    metrics = done("run", *PANELS, *LIGHT, "--out", out)
    return out, metrics


@pytest.fixture(scope="module")
def points(cluster, tmp_path_factory):
    out = tmp_path_factory.mktemp("points") / "data"
    done("generate", "--panels", 40, "--frames", 40, "--seed", 9, "--out", out)
    return out


@pytest.fixture
def trained(whole, tmp_path):
    """A copy of the run's models, to be damaged."""
    shutil.copytree(whole[0] / "models", tmp_path / "run" / "models")
    return tmp_path / "run"


def scores_of(folder):
    return pq.read_table(folder / "scores.parquet").sort_by("number")


def test_cracked_panels_are_found_timed_and_placed(whole):
    folder, metrics = whole
    for name in ("patchcore", "ensemble"):
        areas = metrics["test"]["detectors"][name]["cracked"]["all cracked"]
        assert areas["pr_auc"]["value"] > 0.95
    off = metrics["test"]["found"]["all cracked"]
    assert off["frame"]["median_error"]["value"] <= 1
    assert off["place"]["median_error"]["value"] <= 0.03
    for name in ("report.html", "metrics.json", "config.json", "training.json", "pictures.npz"):
        assert (folder / name).stat().st_size > 0
    assert {stage["name"] for stage in metrics["stages"]} >= {"features", "PatchCore", "DREAM"}


def test_scores_hold_a_row_for_each_panel_that_training_has_not_seen(whole):
    folder, metrics = whole
    rows = scores_of(folder)
    counts = metrics["data"]["counts"]
    held_out = sum(n for group, n in counts.items() if not group.startswith("train/"))
    assert len(rows) == held_out == len(set(rows["number"].to_pylist()))
    called = rows["called_ng"].to_numpy()
    value = metrics["decision"]["thresholds"]["ensemble"]["value"]
    np.testing.assert_array_equal(called, rows["ensemble"].to_numpy() > value)
    # What was found is said of panels called NG, and of no other.
    assert (rows["found_frame"].is_valid().to_numpy() == called).all()


def test_a_second_run_repeats_no_work_and_says_the_same(whole):
    folder, metrics = whole
    before = {p: p.read_bytes() for p in (folder / "models").iterdir()}
    again = done("run", *PANELS, *LIGHT, "--out", folder)
    assert {p: p.read_bytes() for p in (folder / "models").iterdir()} == before
    assert again["test"] == metrics["test"]


def test_scoring_the_data_of_the_run_gives_its_scores_again(whole, tmp_path):
    folder, _ = whole
    found = done("score", folder, folder / "data", "--out", tmp_path)
    assert found["panels"] == 500
    again, first = scores_of(tmp_path), scores_of(folder)
    rows = pa.compute.is_in(again["number"], first["number"].combine_chunks())
    for name in ("dream", "patchcore", "ensemble", "called_ng", "found_place"):
        assert again.filter(rows)[name].to_pylist() == first[name].to_pylist()


def test_points_and_bundles_score_alike_and_bad_bundles_are_listed(whole, points, tmp_path):
    done("score", whole[0], points, "--out", tmp_path / "points")
    done("export", points, "--out", tmp_path / "bundles")
    (broken,) = (tmp_path / "bundles").glob("*_000007")
    (broken / "frame_00003.txt").write_text("# x,y,index\n1,2\n")
    found = done(
        "score", whole[0], tmp_path / "bundles", "--out", tmp_path / "scores", "--format", "csv"
    )
    assert found["panels"] == 39
    of_bundles = pa.csv.read_csv(tmp_path / "scores" / "scores.csv")
    rejects = pa.csv.read_csv(tmp_path / "scores" / "rejects.csv").to_pylist()
    assert [row["bundle"] for row in rejects] == [broken.name]
    assert rejects[0]["file"].endswith("frame_00003.txt")
    of_points = {row["number"]: row for row in scores_of(tmp_path / "points").to_pylist()}
    for row in of_bundles.to_pylist():
        own = of_points[int(row["name"].split("_")[-1])]
        assert row["patchcore"] == pytest.approx(own["patchcore"], rel=1e-5)
        assert row["called_ng"] == own["called_ng"]


@pytest.mark.long
def test_bundles_that_know_no_scenario_and_no_split_make_a_run(cluster, tmp_path):
    done("generate", "--panels", 120, "--frames", 40, "--seed", 2, "--out", tmp_path / "p")
    done("export", tmp_path / "p", "--out", tmp_path / "bundles")
    for path in (tmp_path / "bundles").glob("*/metadata.json"):
        known = json.loads(path.read_text())
        path.write_text(json.dumps({"label": known["label"]}))
    done("features", tmp_path / "bundles", "--assign-splits", "--out", tmp_path / "f")
    options = ("--detectors", "patchcore", "--out", tmp_path / "run")
    metrics = done("run", tmp_path / "f", *options)
    test = metrics["test"]["panels"]
    assert test["n"] == sum(n for k, n in metrics["data"]["counts"].items() if "test" in k)
    assert (tmp_path / "run" / "report.html").stat().st_size > 0
    assert "--assign-splits" in refused("run", without_splits(tmp_path), *options)


def without_splits(folder):
    done("features", folder / "bundles", "--out", folder / "none")
    return folder / "none"


def test_patchcore_alone_is_trained_without_torch(whole, join_environment, tmp_path):
    options = ("--detectors", "patchcore", "--out", tmp_path / "run")
    command = [sys.executable, "-c", WITHOUT_TORCH, "fpcb", "train", whole[0] / "data", *options]
    finished = subprocess.run(
        [*map(str, command)], capture_output=True, text=True, cwd=ROOT, env=join_environment
    )
    assert finished.returncode == 0, finished.stderr
    assert json.loads((tmp_path / "run/models/detectors.json").read_text())["detectors"] == [
        "patchcore"
    ]


def test_the_driver_loads_no_faiss():
    code = "import sys, pipelines.fpcb.run, pipelines.fpcb.train; print('faiss' in sys.modules)"
    finished = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert finished.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("detectors.json", None, "no trained detectors"),
        ("detectors.json", b"{", "damaged"),
        ("decision.json", b'{"ensemble": {}}', "damaged"),
        ("dream.safetensors", b"torn", "damaged"),
        ("kink_filter.npz", b"PK", "damaged"),
        ("baselines.json", b"[]", "damaged"),
        ("patchcore.json", b"{}", "patchcore.json"),
    ],
)
def test_damaged_models_are_named(trained, points, tmp_path, name, content, words):
    path = trained / "models" / name
    path.unlink() if content is None else path.write_bytes(content)
    error = refused("score", trained, points, "--out", tmp_path / "scores")
    assert words in error
    assert str(trained) in error


def test_a_torn_index_is_refused_before_faiss_reads_it(trained, points, tmp_path):
    (index,) = (trained / "models").glob("patchcore.*.faiss")
    index.write_bytes(index.read_bytes()[:-100])
    assert index.name in refused("score", trained, points, "--out", tmp_path / "scores")


def test_models_of_another_feature_version_are_refused(trained, points, tmp_path):
    about = trained / "models" / "detectors.json"
    about.write_text(json.dumps(json.loads(about.read_text()) | {"feature_version": "0-old"}))
    error = refused("score", trained, points, "--out", tmp_path / "scores")
    assert "0-old" in error
    assert "train" in error


@pytest.mark.parametrize(
    ("frames", "code"), [(60, 0), (200, 2)], ids=["resampled", "too many frames"]
)
def test_panels_of_another_length_are_resampled_or_refused(whole, tmp_path, frames, code):
    done("generate", "--panels", 20, "--frames", frames, "--fps", frames, "--out", tmp_path / "p")
    outcome = tenfold("fpcb", "score", whole[0], tmp_path / "p", "--out", tmp_path / "s")
    assert outcome.code == code, outcome.err
    if code == 2:
        assert "frames" in outcome.err
    else:
        rows = scores_of(tmp_path / "s")
        assert rows["n_frames"].to_pylist() == [60] * 20
        found = rows.filter(pa.compute.field("called_ng"))
        late = np.abs(found["found_frame"].to_numpy() - found["damage_frame"].to_numpy())
        assert len(found) == 0 or np.median(late) < 20


def test_features_of_other_places_are_refused(whole, tmp_path):
    done("features", "--panels", 20, "--places", 48, "--out", tmp_path / "f")
    error = refused("score", whole[0], tmp_path / "f", "--out", tmp_path / "s")
    assert "places" in error
    assert "64" in error


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--scenario", "crack"), "good"),
        (("--panels", 3), "good"),
    ],
    ids=["no good panels", "hardly any panels"],
)
def test_training_without_good_panels_is_refused(cluster, tmp_path, options, words):
    done("features", "--panels", 30, *options, "--out", tmp_path / "f")
    error = refused("train", tmp_path / "f", "--detectors", "patchcore", "--out", tmp_path / "r")
    assert words in error


def test_good_panels_alone_are_enough(cluster, tmp_path):
    done(
        "features", "--panels", 60, "--scenario", "normal", "--frames", 40, "--out", tmp_path / "f"
    )
    options = ("--detectors", "patchcore", "--out", tmp_path / "r")
    metrics = done("run", tmp_path / "f", *options)
    assert metrics["decision"]["ensemble"]["kind"] == "maximum"
    assert metrics["test"]["panels"]["n_bad"] == 0
    error = refused("run", tmp_path / "f", *options, "--ng-precision", 0.9)
    assert "--false-alarms" in error


@pytest.mark.parametrize(
    "options",
    [("--detectors", "svm"), ("--false-alarms", 2), ("--coreset-share", 0), ("--epochs", 0),
     ("--device", "tpu"), ("--bank-kind", "lsh"), ("--batch-size", 7)],
    ids=lambda options: options[0],
)  # fmt: skip
def test_options_that_cannot_be_used_are_named(options, tmp_path):
    assert options[0] in refused("train", tmp_path, *options)
