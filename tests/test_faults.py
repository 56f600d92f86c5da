"""Whole runs under SIGKILL and Ctrl-C: whatever dies, the dictionary is the same to the byte."""

import os
import re
import signal

import psutil
import pytest
from driver import Driver, processes

from pipelines.news.synthetic import SyntheticConfig, write_market

MARKET = SyntheticConfig(documents=8_000, tickers=30, sessions=100, words=4)
FIT = ["--targets", "excess_return,log_range", "--folds", "2", "--alphas", "24", "--stretch", "2"]
FIT += ["--alpha-ratio", "12", "--shard-rows", "2000", "--workers", "2"]
UNITS = 2 * (2 + 1) * (24 // 2)


@pytest.fixture(scope="module")
def market(tmp_path_factory):
    folder = tmp_path_factory.mktemp("market")
    write_market(MARKET, folder)
    return folder


class Fit(Driver):
    """A ``tenfold news fit``."""

    def __init__(self, market, out, environment, *options):
        files = [f"--{name}={market / name}.parquet" for name in ("news", "prices")]
        super().__init__(out, environment, "news", "fit", "--out", out, *files, *FIT, *options)

    def units(self):
        """Return how many units of the path are finished."""
        return self.finished("work/path")

    def dictionary(self):
        return (self.out / "dictionary.parquet").read_bytes()


@pytest.fixture(scope="module")
def undisturbed(market, tmp_path_factory, join_environment):
    driver = Fit(market, tmp_path_factory.mktemp("undisturbed") / "run", join_environment)
    driver.finish()
    assert driver.units() == UNITS
    return driver.dictionary()


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


# The short chaos of `make test` kills a shard, a solver and a driver, too.
@pytest.mark.long
def test_killed_shard_and_killed_solver_change_no_byte(
    market, undisturbed, tmp_path, join_environment
):
    driver = Fit(market, tmp_path / "run", join_environment)
    (shard, *_) = driver.wait_for(lambda: processes("ray::count n-grams"))
    shard.kill()
    driver.wait_for(lambda: driver.units() >= 3)
    (solver, *_) = driver.wait_for(lambda: processes("ray::LassoWorker.solve"))
    solver.kill()
    said = driver.finish()
    assert re.search(r"^count n-grams: shard \d+ again after", said, re.MULTILINE)
    # The other solver may have been given a copy of the unit, and have answered already.
    assert re.search(r"^solve path: (unit|worker) \S+ again after", said, re.MULTILINE)
    assert "Traceback" not in said
    assert driver.dictionary() == undisturbed


@pytest.mark.long
def test_killed_driver_starts_again_where_it_was(market, undisturbed, tmp_path, join_environment):
    first = Fit(market, tmp_path / "run", join_environment)
    first.wait_for(lambda: first.units() >= 5)
    first.kill()
    assert not (first.out / "manifest.json").exists(), "the folder does not claim to be whole"
    done = first.units()
    assert 5 <= done < UNITS

    again = Fit(market, tmp_path / "run", join_environment)
    said = again.finish()
    assert reused(said, "count n-grams") == MARKET.documents // 2000
    assert reused(said, "solve path") >= done - 1
    assert (again.out / "manifest.json").exists()
    assert again.units() <= UNITS + 1
    assert again.dictionary() == undisturbed


def test_interrupted_run_says_how_to_resume_and_does(
    market, undisturbed, tmp_path, join_environment
):
    alone = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    own_ray = ["--num-cpus", "2", "--object-store-gib", "0.3"]
    first = Fit(market, tmp_path / "run", alone, *own_ray)
    first.wait_for(lambda: first.units() >= 5)
    # Ctrl-C reaches the whole process group, Ray's own processes among it.
    os.killpg(first.process.pid, signal.SIGINT)
    code, said = first.wait()
    assert code == 130
    assert "solve path" in said
    assert "stopped by KeyboardInterrupt" in said
    assert said.splitlines()[-1] == "tenfold: stopped. Run the same command to resume."
    assert "Traceback" not in said
    assert not [process for process in psutil.process_iter() if in_group(process, first.process)]

    again = Fit(market, tmp_path / "run", join_environment)
    assert reused(again.finish(), "solve path") >= 5
    assert again.dictionary() == undisturbed
