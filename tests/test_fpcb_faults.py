"""Panels made under SIGKILL: whatever dies, the rerun makes what is missing and no byte differs."""

import os
import re
from pathlib import Path

import pytest
from command import tenfold
from driver import Driver, below, processes, title

WORK = ("--panels", "1200", "--shard-size", "30", "--seed", "3", "--workers", "2")
COMMAND = ("fpcb", "generate", *WORK)


@pytest.fixture(scope="module")
def undisturbed(cluster, tmp_path_factory):
    out = tmp_path_factory.mktemp("undisturbed")
    outcome = tenfold(*COMMAND, "--out", out, "--json")
    assert outcome.code == 0, outcome.err
    return outcome.json["digest"], files_of(out)


def files_of(folder):
    whole = [path for path in folder.rglob("*.parquet") if not path.name.startswith(".")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in whole}


def start(out, environment):
    """Start a ``tenfold fpcb generate`` of its own, on the tests' Ray or with no address alone."""
    return Driver(out, environment, *COMMAND, "--out", out)


def assert_rerun_is_the_undisturbed(out, undisturbed, at_least):
    outcome = tenfold(*COMMAND, "--out", out, "--json")
    assert outcome.code == 0, outcome.err
    reused = re.search(r"(\d+) from an earlier run", outcome.err)
    assert reused
    assert int(reused[1]) >= at_least
    assert outcome.json["digest"] == undisturbed[0]
    assert files_of(out) == undisturbed[1]
    assert not list(out.rglob(".partial-*"))


# In `make test`, test_runs.py kills a driver in this stage.
@pytest.mark.long
def test_killed_worker_and_killed_driver_change_no_byte(
    cluster, undisturbed, tmp_path, join_environment
):
    driver = start(tmp_path / "data", join_environment)
    driver.wait_for(lambda: driver.finished("panels") >= 3)
    (victim, *_) = driver.wait_for(lambda: processes("ray::generate panels"))
    victim.kill()
    again = re.compile(r"^generate panels: shard \d+ again after", re.MULTILINE)
    driver.wait_for(lambda: again.search(driver.said))
    done = driver.finished("panels")
    driver.wait_for(lambda: driver.finished("panels") > done)
    driver.kill()
    assert not (tmp_path / "data" / "data.json").exists()
    assert_rerun_is_the_undisturbed(tmp_path / "data", undisturbed, done)


@pytest.mark.long
def test_killed_raylet_ends_in_an_error_and_the_rerun_goes_on(cluster, undisturbed, tmp_path):
    alone = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    driver = start(tmp_path / "data", alone)
    driver.wait_for(lambda: driver.finished("panels") >= 3)
    (raylet, *_) = [p for p in below(driver.process.pid) if Path(title(p)).name == "raylet"]
    raylet.kill()
    code, said = driver.wait()
    assert code == 1, said
    assert "Traceback" not in said
    assert_rerun_is_the_undisturbed(tmp_path / "data", undisturbed, 3)


def test_full_disk_is_named_and_what_is_finished_is_kept(cluster, undisturbed, small_disk):
    filler = small_disk / "other people's files"
    filler.write_bytes(bytes(1_300_000))
    fewer = ("fpcb", "generate", "--panels", 150, "--shard-size", 10, "--seed", 3)
    outcome = tenfold(*fewer, "--out", small_disk / "data")
    assert outcome.code == 2
    assert f"{small_disk}/data/panels: no room left to write" in outcome.err
    assert "Traceback" not in outcome.err
    done = set(files_of(small_disk))
    assert done
    filler.unlink()
    again = tenfold(*fewer, "--out", small_disk / "data", "--json")
    assert again.code == 0, again.err
    assert "from an earlier run" in again.err
    assert done < set(files_of(small_disk))
