"""The fpcb job under SIGKILL: bank, worker and driver die, and every score stays the same."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest
from command import tenfold

ROOT = Path(__file__).parents[1]
TIMEOUT_S = 120.0
JOB = ("--panels", "400", "--frames", "40", "--seed", "8", "--detectors", "patchcore",
       "--shard-workers", "1")  # fmt: skip


@pytest.fixture(scope="module")
def undisturbed(cluster, tmp_path_factory):
    out = tmp_path_factory.mktemp("undisturbed")
    outcome = tenfold("fpcb", "run", *JOB, "--out", out, "--json")
    assert outcome.code == 0, outcome.err
    return out


def rows_of(out):
    return pq.read_table(out / "scores.parquet")


class Driver:
    """A ``tenfold fpcb run`` of its own, on the tests' Ray."""

    def __init__(self, out, environment):
        self.out, self.log = out, Path(f"{out}.log")
        with self.log.open("w") as sink:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "pipelines", "fpcb", "run", *JOB, "--out", str(out)],
                env={**environment, "PYTHONPATH": str(ROOT)},
                stdout=subprocess.DEVNULL,
                stderr=sink,
                start_new_session=True,
            )

    def wait_for(self, condition):
        deadline = time.monotonic() + TIMEOUT_S
        while not (found := condition()):
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.005)
        return found

    def finished(self, part):
        manifests = self.out.glob(f"{part}/**/_manifest.jsonl")
        return sum(len(path.read_bytes().splitlines()) for path in manifests)


def processes(title):
    """Processes of the tests' Ray whose title begins so."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if process.cmdline()[0].startswith(title):
                found.append(process)
        except (psutil.Error, IndexError):
            continue
    return found


def test_killed_bank_and_killed_driver_change_no_score(
    cluster, undisturbed, tmp_path, join_environment
):
    out = tmp_path / "run"
    driver = Driver(out, join_environment)
    driver.wait_for(lambda: driver.finished("work/scores") >= 1)
    (bank, *_) = driver.wait_for(lambda: processes("ray::BankActor"))
    bank.kill()
    done = driver.finished("work/scores")
    driver.wait_for(lambda: driver.finished("work/scores") > done)
    os.killpg(driver.process.pid, signal.SIGKILL)
    driver.process.wait()
    outcome = tenfold("fpcb", "run", *JOB, "--out", out, "--json")
    assert outcome.code == 0, outcome.err
    assert "finished by an earlier run" in outcome.err
    assert rows_of(out).equals(rows_of(undisturbed))
    for name in ("models/patchcore.json", "models/decision.json"):
        mine, other = (path.joinpath(name).read_text() for path in (out, undisturbed))
        assert mine == other
