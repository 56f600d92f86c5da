"""Panels made under SIGKILL: whatever dies, the rerun makes what is missing and no byte differs."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from command import tenfold

ROOT = Path(__file__).parents[1]
WORK = ("--panels", "1200", "--shard-size", "30", "--seed", "3", "--workers", "2")
COMMAND = ("fpcb", "generate", *WORK)
TIMEOUT_S = 120.0


@pytest.fixture(scope="module")
def undisturbed(cluster, tmp_path_factory):
    out = tmp_path_factory.mktemp("undisturbed")
    outcome = tenfold(*COMMAND, "--out", out, "--json")
    assert outcome.code == 0, outcome.err
    return outcome.json["digest"], files_of(out)


def files_of(folder):
    whole = [path for path in folder.rglob("*.parquet") if not path.name.startswith(".")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in whole}


class Driver:
    """A ``tenfold fpcb generate`` of its own, on the tests' Ray or with ``address`` on none."""

    def __init__(self, out, environment):
        self.out, self.log = out, Path(f"{out}.log")
        with self.log.open("w") as sink:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "pipelines", *COMMAND, "--out", str(out)],
                env={**environment, "PYTHONPATH": str(ROOT)},
                stdout=subprocess.DEVNULL,
                stderr=sink,
                start_new_session=True,
            )

    def finished_shards(self):
        manifest = self.out / "panels" / "_manifest.jsonl"
        return len(manifest.read_bytes().splitlines()) if manifest.exists() else 0

    def wait_for(self, condition):
        deadline = time.monotonic() + TIMEOUT_S
        while not (found := condition()):
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.01)
        return found

    def wait(self):
        code = self.process.wait(timeout=TIMEOUT_S)
        return code, self.log.read_text()


def children(pid, title):
    """Return the processes below ``pid`` whose command line has ``title``."""
    found = []
    for process in psutil.Process(pid).children(recursive=True):
        try:
            if title in " ".join(process.cmdline()[:1]):
                found.append(process)
        except psutil.Error:
            continue
    return found


def assert_rerun_is_the_undisturbed(out, undisturbed, at_least):
    outcome = tenfold(*COMMAND, "--out", out, "--json")
    assert outcome.code == 0, outcome.err
    reused = re.search(r"(\d+) from an earlier run", outcome.err)
    assert reused
    assert int(reused[1]) >= at_least
    assert outcome.json["digest"] == undisturbed[0]
    assert files_of(out) == undisturbed[1]
    assert not list(out.rglob(".partial-*"))


def test_killed_worker_and_killed_driver_change_no_byte(
    cluster, undisturbed, tmp_path, join_environment
):
    driver = Driver(tmp_path / "data", join_environment)
    driver.wait_for(lambda: driver.finished_shards() >= 3)
    (victim, *_) = driver.wait_for(lambda: children(os.getpid(), "ray::generate panels"))
    victim.kill()
    again = re.compile(r"^generate panels: shard \d+ again after", re.MULTILINE)
    driver.wait_for(lambda: again.search(driver.log.read_text()))
    done = driver.finished_shards()
    driver.wait_for(lambda: driver.finished_shards() > done)
    os.killpg(driver.process.pid, signal.SIGKILL)
    driver.process.wait()
    assert not (tmp_path / "data" / "data.json").exists()
    assert_rerun_is_the_undisturbed(tmp_path / "data", undisturbed, done)


def test_killed_raylet_ends_in_an_error_and_the_rerun_goes_on(cluster, undisturbed, tmp_path):
    alone = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    driver = Driver(tmp_path / "data", alone)
    driver.wait_for(lambda: driver.finished_shards() >= 3)
    (raylet, *_) = children(driver.process.pid, "raylet")
    raylet.kill()
    code, said = driver.wait()
    assert code == 1, said
    assert "Traceback" not in said
    assert_rerun_is_the_undisturbed(tmp_path / "data", undisturbed, 3)


@pytest.fixture
def small_disk(tmp_path):
    """A disk of two megabytes."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = shutil.which("mount")
    if (
        mount is None
        or subprocess.run([mount, "-t", "tmpfs", "-o", "size=2m", "none", disk]).returncode
    ):
        pytest.skip("mounting a small disk needs root")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


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
