"""Whole runs under SIGKILL and Ctrl-C: whatever dies, the dictionary is the same to the byte."""

import os
import re
import signal

import psutil
import pytest
from chaos import episode
from chaos.jobs import make_jobs
from chaos.plan import CLUSTER, Episode, Fault, Variant
from chaos.processes import Seen
from driver import Driver, below, processes, title, wait_until

MIXED = (
    ("task", "task", "count", 0.2),
    ("corrupted shard", "flipped bit", "assemble", 0.3),
    ("actor", "actor", "path", 0.3),
    ("driver", "driver", "path", 0.6),
)


class OneMachine:
    """The tests' own Ray as a field: its workers may be killed, its node may not."""

    def __init__(self, joining):
        self.joining = joining

    def workers(self):
        found = [Seen(process, title(process)) for process in below(os.getpid())]
        return [(seen, None) for seen in found if seen.title.startswith("ray::")]


@pytest.fixture(scope="module")
def field(join_environment):
    return OneMachine(join_environment)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tmp_path_factory.mktemp("market")


@pytest.fixture(scope="module")
def job(data):
    return make_jobs(data)["news"]


@pytest.fixture(scope="module")
def undisturbed(job, data, tmp_path_factory, field):
    return episode.undisturbed(field, job, tmp_path_factory.mktemp("undisturbed"), data)


@pytest.fixture
def start(job, data, tmp_path):
    """Start the fit in a process of its own; again, to resume it."""

    def start(environment, *options):
        out = tmp_path / "run"
        return Driver(out, environment, *(w.format(out=out, data=data) for w in job.steps[0]),
                      *options)  # fmt: skip

    return start


def units(driver):
    """Return how many units of the path are finished."""
    return driver.finished("work/path")


def assert_same(job, driver, undisturbed):
    """Hold what the fit has written against what came out undisturbed."""
    wanted = {k: v for k, v in undisturbed.outputs.items() if not k.startswith("scored/")}
    assert "dictionary.parquet" in wanted
    assert job.outputs(driver.out) == wanted


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


def test_news_survives_shard_solver_and_driver_killed_and_a_flipped_bit(
    cluster, field, job, data, undisturbed, tmp_path
):
    faults = tuple(
        Fault(scenario=scenario, variant=Variant(victim, CLUSTER, {}), job="news", phase=phase,
              moment=moment)
        for scenario, victim, phase, moment in MIXED
    )  # fmt: skip
    planned = Episode(0, "news", CLUSTER, faults)
    played = episode.Episode(field, planned, job, undisturbed, tmp_path, data, seed=0)
    outcomes = [episode.as_row(outcome) for outcome in played.play()]
    assert not [o for o in outcomes if not o["missed"] and not o["survived"]]
    # One that finds nobody at work at its moment is none; they are few.
    assert sum(not o["missed"] for o in outcomes) >= len(MIXED) - 1


@pytest.mark.long
def test_killed_shard_and_killed_solver_change_no_byte(start, job, undisturbed, join_environment):
    driver = start(join_environment)
    (shard, *_) = driver.wait_for(lambda: processes("ray::count n-grams"))
    shard.kill()
    driver.wait_for(lambda: units(driver) >= 3)
    (solver, *_) = driver.wait_for(lambda: processes("ray::LassoWorker.solve"))
    solver.kill()
    said = driver.finish()
    assert re.search(r"^count n-grams: shard \d+ again after", said, re.MULTILINE)
    # The other solver may have been given a copy of the unit, and have answered already.
    assert re.search(r"^solve path: (unit|worker) \S+ again after", said, re.MULTILINE)
    assert "Traceback" not in said
    assert_same(job, driver, undisturbed)


@pytest.mark.long
def test_killed_driver_starts_again_where_it_was(start, job, undisturbed, join_environment):
    first = start(join_environment)
    first.wait_for(lambda: units(first) >= 5)
    first.kill()
    assert not (first.out / "manifest.json").exists(), "the folder does not claim to be whole"
    done, total = units(first), undisturbed.pieces["path"]
    assert 5 <= done < total

    again = start(join_environment)
    said = again.finish()
    assert reused(said, "count n-grams") == undisturbed.pieces["count"]
    assert reused(said, "solve path") >= done - 1
    assert (again.out / "manifest.json").exists()
    assert units(again) <= total + 1
    assert_same(job, again, undisturbed)


def test_interrupted_run_says_how_to_resume_and_does(start, job, undisturbed, join_environment):
    alone = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    first = start(alone, "--num-cpus", "2", "--object-store-gib", "0.3")
    first.wait_for(lambda: units(first) >= 5)
    # Ctrl-C reaches the whole process group, Ray's own processes among it.
    os.killpg(first.process.pid, signal.SIGINT)
    code, said = first.wait()
    assert code == 130
    assert "solve path" in said
    assert "stopped by KeyboardInterrupt" in said
    assert said.splitlines()[-1] == "tenfold: stopped. Run the same command to resume."
    assert "Traceback" not in said
    wait_until(lambda: not any(in_group(one, first.process) for one in psutil.process_iter()),
               "the end of all that it started")  # fmt: skip

    again = start(join_environment)
    assert reused(again.finish(), "solve path") >= 5
    assert_same(job, again, undisturbed)
