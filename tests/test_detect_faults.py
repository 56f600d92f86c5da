"""The fpcb job under SIGKILL: bank, worker and driver die, and every score stays the same."""

import pyarrow.parquet as pq
import pytest
from command import tenfold
from driver import Driver, processes

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


def test_killed_bank_and_killed_driver_change_no_score(
    cluster, undisturbed, tmp_path, join_environment
):
    out = tmp_path / "run"
    driver = Driver(out, join_environment, "fpcb", "run", *JOB, "--out", out)
    driver.wait_for(lambda: driver.finished("work/scores") >= 1)
    (bank, *_) = driver.wait_for(lambda: processes("ray::BankActor"))
    bank.kill()
    done = driver.finished("work/scores")
    driver.wait_for(lambda: driver.finished("work/scores") > done)
    driver.kill()
    assert driver.log.read_text().count("nodes: ") == 1  # the recipe says it, not each stage
    outcome = tenfold("fpcb", "run", *JOB, "--out", out, "--json")
    assert outcome.code == 0, outcome.err
    assert "finished by an earlier run" in outcome.err
    assert rows_of(out).equals(rows_of(undisturbed))
    for name in ("models/patchcore.json", "models/decision.json"):
        mine, other = (path.joinpath(name).read_text() for path in (out, undisturbed))
        assert mine == other
