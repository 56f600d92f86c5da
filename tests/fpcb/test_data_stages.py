"""Data sets of panels made on the cluster: the same for any cut, resumable, exchanged exactly."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from command import tenfold

from pipelines.fpcb import make_features
from pipelines.fpcb.dataset import FEATURES, open_data_set
from pipelines.fpcb.features.extraction import extract
from pipelines.fpcb.features.store import frame_array, map_array, read_rows
from pipelines.fpcb.features.table import names
from pipelines.fpcb.panel_table import read_panels, to_batches

ROOT = Path(__file__).parents[2]
SMALL = ("--panels", 200, "--frames", 30, "--seed", 5)


def made(command, out, *options):
    outcome = tenfold("fpcb", command, *options, "--out", out, "--json")
    assert outcome.code == 0, outcome.err
    return outcome.json


@pytest.fixture(scope="module")
def panels(cluster, tmp_path_factory):
    out = tmp_path_factory.mktemp("panels") / "data"
    return out, made("generate", out, *SMALL)


@pytest.fixture(scope="module")
def bundles(panels, tmp_path_factory):
    out = tmp_path_factory.mktemp("bundles") / "out"
    assert made("export", out, panels[0])["bundles"] == 200
    return out


def files_of(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.parquet")}


@pytest.mark.parametrize("workers", [1, 5])
def test_files_are_the_same_bytes_for_any_number_of_workers(panels, tmp_path, workers):
    folder, first = panels
    second = made("generate", tmp_path, *SMALL, "--workers", workers)
    assert second["digest"] == first["digest"]
    assert files_of(tmp_path) == files_of(folder)


@pytest.mark.parametrize("shard_size", [7, 61])
def test_panels_are_the_same_for_any_shard_size(panels, tmp_path, shard_size):
    folder, first = panels
    second = made("generate", tmp_path, *SMALL, "--shard-size", shard_size)
    assert second["digest"] == first["digest"]
    assert second["files"] > first["files"]

    def rows(where):
        table = pq.ParquetDataset(where / "panels", partitioning=None).read()
        return table.sort_by("number")

    assert rows(tmp_path).equals(rows(folder))


def test_other_seed_or_other_option_gives_another_digest(panels, tmp_path):
    seeded = made("generate", tmp_path / "seed", *SMALL[:-1], 6)
    quiet = made("generate", tmp_path / "noise", *SMALL, "--noise", 0.9)
    assert len({panels[1]["digest"], seeded["digest"], quiet["digest"]}) == 3


def test_fused_features_are_those_of_the_points_for_any_shard_size(panels, tmp_path):
    of_points = made("features", tmp_path / "points", panels[0])
    fused = made("features", tmp_path / "fused", *SMALL, "--shard-size", 33)
    assert fused["digest"] == of_points["digest"]
    assert fused["counts"] == of_points["counts"] == panels[1]["counts"]
    assert not (tmp_path / "fused" / "panels").exists()


def test_feature_files_hold_what_extract_computes(panels, tmp_path):
    made("features", tmp_path, panels[0])
    data = open_data_set(str(tmp_path), FEATURES)
    name = next(name for name in data.files(FEATURES) if "train/scenario=crack" in name)
    rows = read_rows(data.store, name)
    points = read_panels(
        open_data_set(str(panels[0]), "panels").store, name.replace("features", "panels", 1)
    )
    ((batch, _),) = to_batches(points)
    found = extract(batch)
    assert rows["number"].to_pylist() == batch.number.tolist()
    assert (frame_array(rows, names("frame")) == found.frame).all()
    assert (map_array(rows, names("map")) == found.maps).all()
    for k, feature in enumerate(names("panel")):
        assert rows[f"panel_{feature}"].to_numpy().tobytes() == found.panel[:, k].tobytes()


def test_lost_torn_and_flipped_shards_alone_are_made_again(panels, tmp_path):
    first = made("generate", tmp_path, *SMALL)
    files = sorted((tmp_path / "panels").rglob("*.parquet"))
    before = files_of(tmp_path)
    files[0].unlink()
    files[1].write_bytes(files[1].read_bytes()[:-100])
    flipped = bytearray(files[2].read_bytes())
    flipped[len(flipped) // 2] ^= 1  # of the same size
    files[2].write_bytes(flipped)
    outcome = tenfold("fpcb", "generate", *SMALL, "--out", tmp_path, "--json")
    assert f"{len(files) - 3} from an earlier run" in outcome.err
    assert outcome.json["digest"] == first["digest"]
    assert files_of(tmp_path) == before


def test_finished_data_set_needs_no_ray(panels, tmp_path):
    environment = {**os.environ, "RAY_ADDRESS": "127.0.0.1:9", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "pipelines", "fpcb", "generate", "--out", str(panels[0])]
    done = subprocess.run(
        [*command, *map(str, SMALL), "--json"], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == panels[1]
    assert "finished by an earlier run" in done.stderr


def test_recompute_makes_every_shard_again(panels, tmp_path):
    first = made("generate", tmp_path, *SMALL)
    outcome = tenfold("fpcb", "generate", *SMALL, "--out", tmp_path, "--recompute", "--json")
    assert "earlier run" not in outcome.err
    assert outcome.json == first


def test_features_of_other_options_replace_the_cached_ones(panels, tmp_path):
    wide = made("features", tmp_path, panels[0], "--places", 80)
    narrow = made("features", tmp_path, panels[0])
    assert wide["digest"] != narrow["digest"]
    assert made("features", tmp_path, panels[0])["digest"] == narrow["digest"]
    (rows,) = {len(pq.read_table(f)["map_velocity"][0]) for f in tmp_path.rglob("0*.parquet")}
    assert rows == 30 * 64


def test_imported_bundles_are_the_exported_panels(panels, bundles, tmp_path):
    back = made("import", tmp_path, bundles, "--shard-size", 77)
    assert back["rejected"] == 0
    assert back["counts"] == panels[1]["counts"]
    ours = pq.ParquetDataset(panels[0] / "panels", partitioning=None).read().sort_by("number")
    theirs = pq.ParquetDataset(tmp_path / "panels", partitioning=None).read().sort_by("name")
    for name in ("points", "fps", "label", "scenario", "split", "crack_frame", "n_points"):
        assert theirs[name].to_pylist() == ours[name].to_pylist(), name


def test_features_of_bundles_are_those_of_their_data_set(bundles, tmp_path):
    made("import", tmp_path / "data", bundles)
    of_data = made("features", tmp_path / "a", tmp_path / "data")
    of_bundles = made("features", tmp_path / "b", bundles, "--shard-size", 50)
    assert of_bundles["digest"] == of_data["digest"]


def test_bad_bundles_are_listed_and_stop_nothing(bundles, tmp_path):
    good = sorted(path for path in bundles.iterdir())[:6]
    for path in good:
        (tmp_path / "in" / path.name).mkdir(parents=True)
        for file in path.iterdir():
            (tmp_path / "in" / path.name / file.name).write_bytes(file.read_bytes())
    torn = tmp_path / "in" / good[2].name / "frame_00003.txt"
    torn.write_bytes(torn.read_bytes()[:-7])
    (tmp_path / "in" / good[4].name / "fps.txt").write_text("0\n")
    for command, out in (("import", tmp_path / "data"), ("features", tmp_path / "features")):
        result = made(command, out, tmp_path / "in", "--shard-size", 2)
        assert (result["panels"], result["rejected"]) == (4, 2)
        listed = (out / "rejects.csv").read_text()
        assert "frame_00003.txt" in listed
        assert "fps.txt" in listed


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("generate", "--panels", 0), "--panels"),
        (("generate", "--noise", -1), "--noise"),
        (("generate", "--fps", 0), "--fps"),
        (("generate", "--scenario", "dented"), "--scenario"),
        (("generate", "--shard-size", 0), "--shard-size"),
        (("generate", "--workers", 0), "--workers"),
        (("features", "--places", 2), "--places"),
        (("features", "--bundle-fps", "nan"), "--bundle-fps"),
        (("features", "nowhere"), "nowhere"),
        (("import", "nowhere"), "nowhere"),
        (("export", "nowhere"), "nowhere"),
    ],
)
def test_bad_options_are_refused(arguments, named, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    outcome = tenfold("fpcb", *arguments, "--out", tmp_path / "out")
    assert outcome.code == 2
    assert named in outcome.err
    assert "Traceback" not in outcome.err


def test_damaged_points_are_named(panels, tmp_path):
    made("generate", tmp_path, *SMALL)
    file = next((tmp_path / "panels").rglob("*.parquet"))
    file.write_bytes(b"x" * file.stat().st_size)
    outcome = tenfold("fpcb", "features", tmp_path)
    assert outcome.code == 2
    assert file.name in outcome.err
    assert not (tmp_path / "data.json").read_text().count("feature_version")


def test_data_set_whose_files_are_being_replaced_does_not_pass_for_whole(panels, tmp_path):
    made("generate", tmp_path, *SMALL)
    in_the_way = tmp_path / "panels" / "split=train" / "scenario=normal" / "00000.parquet"
    in_the_way.unlink()
    (in_the_way / "a file").mkdir(parents=True)
    assert tenfold("fpcb", "generate", *SMALL[:-1], 6, "--out", tmp_path).code == 1
    outcome = tenfold("fpcb", "features", tmp_path)
    assert outcome.code == 2
    assert "without panels" in outcome.err


def test_features_of_another_version_are_made_again(panels, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(make_features, "FEATURE_VERSION", "0-of-old")
        made("features", tmp_path, panels[0])
    before = json.loads((tmp_path / "data.json").read_text())
    outcome = tenfold("fpcb", "features", panels[0], "--out", tmp_path, "--json")
    assert "earlier run" not in outcome.err
    after = json.loads((tmp_path / "data.json").read_text())
    assert before["feature_version"] == "0-of-old" != after["feature_version"]
