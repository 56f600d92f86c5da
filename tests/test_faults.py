"""Whole runs under SIGKILL and Ctrl-C: whatever dies, the dictionary is the same to the byte."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from pipelines.news.synthetic import SyntheticConfig, write_market

ROOT = Path(__file__).parents[1]
MARKET = SyntheticConfig(documents=8_000, tickers=30, sessions=100, words=4)
FIT = ["--targets", "excess_return,log_range", "--folds", "2", "--alphas", "24", "--stretch", "2"]
FIT += ["--alpha-ratio", "12", "--shard-rows", "2000", "--workers", "2"]
UNITS = 2 * (2 + 1) * (24 // 2)
TIMEOUT_S = 90.0


@pytest.fixture(scope="module")
def market(tmp_path_factory):
    folder = tmp_path_factory.mktemp("market")
    write_market(MARKET, folder)
    return folder


def heed_ctrl_c():
    """A shell that starts this suite in the background makes it, and all it starts, deaf to it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Driver:
    """A ``tenfold news fit`` in a process group of its own, with what it says in a file."""

    def __init__(self, market, out, environment, *options):
        self.out, self.log = Path(out), Path(f"{out}.log")
        command = [sys.executable, "-m", "pipelines", "news", "fit", "--out", str(out)]
        for name in ("news", "prices"):
            command += [f"--{name}", str(market / f"{name}.parquet")]
        with self.log.open("w") as sink:
            self.process = subprocess.Popen(
                [*command, *FIT, *options],
                env={**environment, "PYTHONPATH": str(ROOT)},
                stdout=subprocess.DEVNULL,
                stderr=sink,
                start_new_session=True,
                preexec_fn=heed_ctrl_c,
            )

    def wait_for(self, what, condition):
        """Wait until ``condition()`` is true of the running driver; return what it gave."""
        deadline = time.monotonic() + TIMEOUT_S
        while not (found := condition()):
            assert self.process.poll() is None, f"ended before {what}:\n{self.log.read_text()}"
            assert time.monotonic() < deadline, f"no {what} in time:\n{self.log.read_text()}"
            time.sleep(0.01)
        return found

    def units(self):
        """Return how many units of the path are finished."""
        manifest = self.out / "work" / "path" / "_manifest.jsonl"
        return len(manifest.read_bytes().splitlines()) if manifest.exists() else 0

    def finish(self):
        """Wait for a good end; return what was said."""
        code = self.process.wait(timeout=TIMEOUT_S)
        said = self.log.read_text()
        assert code == 0, said
        return said

    def dictionary(self):
        return (self.out / "dictionary.parquet").read_bytes()


@pytest.fixture(scope="module")
def undisturbed(cluster, market, tmp_path_factory, session_environment):
    driver = Driver(market, tmp_path_factory.mktemp("undisturbed") / "run", session_environment)
    driver.finish()
    assert driver.units() == UNITS
    return driver.dictionary()


@pytest.fixture(scope="module")
def session_environment(cluster):
    """Variables with which another process joins the tests' Ray."""
    return {
        **os.environ,
        "RAY_ADDRESS": cluster.address,
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    }


def worker_of_ours(title):
    """Return a worker of the tests' own Ray whose process title starts so, if there is one."""
    for process in psutil.Process().children(recursive=True):
        try:
            if process.cmdline()[:1] and process.cmdline()[0].startswith(title):
                return process
        except psutil.Error:
            continue
    return None


def in_group(process, leader):
    """Tell whether a process lives on in the group of a leader that has ended."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE and os.getpgid(process.pid) == leader.pid
    except (psutil.Error, OSError):
        return False


def reused(said, stage):
    """Return how many pieces of a stage came from an earlier run."""
    found = re.search(rf"^{stage}: \d+/\d+ \w+ · (\d+) from an earlier run", said, re.MULTILINE)
    return int(found[1]) if found else 0


def test_killed_shard_and_killed_solver_change_no_byte(
    market, undisturbed, tmp_path, session_environment
):
    driver = Driver(market, tmp_path / "run", session_environment)
    shard = driver.wait_for("a shard", lambda: worker_of_ours("ray::count n-grams"))
    shard.kill()
    driver.wait_for("the path", lambda: driver.units() >= 3)
    solver = driver.wait_for("a solver", lambda: worker_of_ours("ray::LassoWorker.solve"))
    solver.kill()
    said = driver.finish()
    assert re.search(r"^count n-grams: shard \d+ again after", said, re.MULTILINE)
    assert re.search(r"^solve path: unit \S+ again after", said, re.MULTILINE)
    assert "Traceback" not in said
    assert driver.dictionary() == undisturbed


def test_killed_driver_starts_again_where_it_was(
    market, undisturbed, tmp_path, session_environment
):
    first = Driver(market, tmp_path / "run", session_environment)
    first.wait_for("the path", lambda: first.units() >= 5)
    first.process.kill()
    first.process.wait(timeout=TIMEOUT_S)
    assert not (first.out / "manifest.json").exists(), "the folder does not claim to be whole"
    done = first.units()
    assert 5 <= done < UNITS

    again = Driver(market, tmp_path / "run", session_environment)
    said = again.finish()
    assert reused(said, "count n-grams") == MARKET.documents // 2000
    assert reused(said, "solve path") >= done - 1
    assert (again.out / "manifest.json").exists()
    assert again.units() <= UNITS + 1
    assert again.dictionary() == undisturbed


def test_interrupted_run_says_how_to_resume_and_does(
    market, undisturbed, tmp_path, session_environment
):
    alone = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    own_ray = ["--num-cpus", "2", "--object-store-gib", "0.3"]
    first = Driver(market, tmp_path / "run", alone, *own_ray)
    first.wait_for("the path", lambda: first.units() >= 5)
    # Ctrl-C reaches the whole process group, Ray's own processes among it.
    os.killpg(first.process.pid, signal.SIGINT)
    assert first.process.wait(timeout=TIMEOUT_S) == 130
    said = first.log.read_text()
    assert "solve path" in said
    assert "stopped by KeyboardInterrupt" in said
    assert said.splitlines()[-1] == "tenfold: stopped. Run the same command to resume."
    assert "Traceback" not in said
    assert not [process for process in psutil.process_iter() if in_group(process, first.process)]

    again = Driver(market, tmp_path / "run", session_environment)
    assert reused(again.finish(), "solve path") >= 5
    assert again.dictionary() == undisturbed
