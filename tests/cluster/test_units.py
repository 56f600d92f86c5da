import re
from pathlib import Path

import numpy as np
import pytest
from remote_work import Solver

from cluster.errors import InputError, ShardsFailed
from cluster.manifest import read_entries
from cluster.storage import Store
from cluster.units import Unit, WorkerKind, solve_units

CHAINS, LENGTH = 3, 3


def chains(tmp_path=None, how=None, at=()):
    """Chains of units; those whose key is in ``at`` go wrong the first time."""
    units = []
    for chain in range(CHAINS):
        for step in range(LENGTH):
            key = f"{chain}-{step}"
            payload = {"k": 10 * chain + step}
            if key in at:
                payload |= {"flag": tmp_path / f"flag-{key}" if tmp_path else None, "how": how}
            units.append(Unit(key, payload, f"{chain}-{step - 1}" if step else None))
    return units


def solve(cluster, store, units, workers=2, make=None, fingerprint="f", kinds=None, **options):
    make = kinds or make or Solver.options(num_cpus=0.5).remote
    return solve_units(
        cluster, make, units, store, workers=workers, fingerprint=fingerprint, label="test",
        **options,
    )  # fmt: skip


@pytest.fixture
def there(tmp_path):
    """Where units leave names for one another."""
    folder = tmp_path / "there"
    folder.mkdir()
    return folder


def without_pid(results):
    return {key: {k: v.tolist() for k, v in r.items() if k != "pid"} for key, r in results.items()}


@pytest.fixture(scope="module")
def undisturbed(cluster, tmp_path_factory):
    return without_pid(solve(cluster, Store(tmp_path_factory.mktemp("u")), chains(), workers=1))


def test_results_follow_the_chains_in_the_order_of_the_units(undisturbed):
    assert list(undisturbed) == [unit.key for unit in chains()]
    assert undisturbed["2-2"]["w"] == [(20 * 0.5 + 21) * 0.5 + 22] * 3


@pytest.mark.parametrize(("workers", "in_flight"), [(2, 1), (3, 2)])
def test_results_do_not_depend_on_the_number_of_workers(
    cluster, store, undisturbed, workers, in_flight
):
    results = solve(cluster, store, chains(), workers, in_flight_per_worker=in_flight)
    assert without_pid(results) == undisturbed


@pytest.mark.parametrize("in_flight", [1, 2])
def test_result_is_the_same_when_workers_are_killed(
    cluster, store, tmp_path, undisturbed, in_flight, capsys
):
    killers = ("0-1", "2-0", "1-2")
    units = chains(tmp_path, "killed", at=killers)
    results = solve(cluster, store, units, in_flight_per_worker=in_flight)
    assert without_pid(results) == undisturbed
    assert all((tmp_path / f"flag-{key}").exists() for key in killers)
    assert re.search(r"unit \d-\d again after ActorDiedError", capsys.readouterr().err)


@pytest.mark.usefixtures("stopped_workers_end")
def test_result_is_the_same_when_a_worker_stalls(cluster, store, tmp_path, undisturbed):
    units = chains(tmp_path, "stalled", at=("1-1",))
    assert without_pid(solve(cluster, store, units)) == undisturbed


def test_unit_that_raises_once_is_solved_again(cluster, store, tmp_path, undisturbed):
    units = chains(tmp_path, "raised", at=("1-1",))
    assert without_pid(solve(cluster, store, units)) == undisturbed


def test_finished_units_are_loaded_and_damaged_ones_solved_again(cluster, store, undisturbed):
    def no_worker():
        raise AssertionError("no worker is needed")

    solve(cluster, store, chains())
    assert without_pid(solve(cluster, store, chains(), make=no_worker)) == undisturbed
    store.write_bytes("1-1.npz", b"damaged")
    store.delete("2-2.npz")
    torn = Path(store.path) / ".partial-0-2-2.npz"  # of a driver that was killed while writing
    torn.touch()
    before = store.checksum("1-2.npz")
    assert without_pid(solve(cluster, store, chains())) == undisturbed
    assert store.checksum("1-2.npz") == before
    assert not torn.exists()
    with pytest.raises(AssertionError, match="no worker"):
        solve(cluster, store, chains(), make=no_worker, fingerprint="other")


def test_loaded_results_have_the_types_of_solved_ones(cluster, store):
    solved = solve(cluster, store, chains())
    loaded = solve(cluster, store, chains())
    for key, arrays in solved.items():
        for name, value in arrays.items():
            assert type(loaded[key][name]) is type(value) is np.ndarray
            assert loaded[key][name].dtype == value.dtype
            assert loaded[key][name].shape == value.shape


def test_idle_worker_takes_what_is_ready(cluster, store, there):
    # One unit that lasts until most of the short ones are done: the other worker has to do them.
    units = [Unit("long", {"k": 0, "there": there, "name": "long", "names": 1 + 10})]
    units += [Unit(f"short-{k}", {"k": k, "there": there, "name": k}) for k in range(12)]
    pids = {key: int(result["pid"]) for key, result in solve(cluster, store, units).items()}
    assert len(set(pids.values())) == 2
    assert sum(pid == pids["long"] for pid in pids.values()) <= 3


def test_short_units_travel_together_and_are_kept_when_a_later_one_is_lost(
    cluster, store, tmp_path
):
    units = [Unit(f"u{k:03d}", {"k": k}) for k in range(300)]
    units[200] = Unit("u200", {"k": 200, "flag": tmp_path / "flag", "how": "raised"})
    results = solve(cluster, store, units)
    assert [results[f"u{k:03d}"]["w"][0] for k in range(300)] == [*range(300)]
    entries = read_entries(store, "f")
    assert [key for key, entry in sorted(entries.items()) if entry.attempts > 1] == ["u200"]


def test_faster_worker_does_more_of_the_work(cluster, store, there):
    # How near to the ideal they end is simulated in test_schedule.py.
    speeds = {"slow": 1.0, "fast": 4.0}
    kinds = [
        WorkerKind(
            name=name,
            make_worker=lambda s=speed: Solver.options(num_cpus=0).remote(speed=s),
            count=1,
        )
        for name, speed in speeds.items()
    ]
    work = np.random.default_rng(0).lognormal(-1.0, 0.5, 60)
    both = {"there": there, "names": len(kinds)}
    units = [Unit(f"u{k}", {"k": k, "seconds": w, **both}, cost=w) for k, w in enumerate(work)]
    solve(cluster, store, units, kinds=kinds)
    by = {key: entry.summary["kind"] for key, entry in read_entries(store, "f").items()}
    done = {kind: sum(w for k, w in enumerate(work) if by[f"u{k}"] == kind) for kind in speeds}
    assert 0 < done["slow"] < done["fast"]


def test_kind_whose_constructor_refuses_leaves_the_work_to_others(
    cluster, store, undisturbed, capsys
):
    kinds = [
        WorkerKind(name="lying", make_worker=lambda: Solver.remote(refuses=True), count=2),
        WorkerKind(name="good", make_worker=Solver.options(num_cpus=0.5).remote, count=1),
    ]
    results = solve(cluster, store, chains(), kinds=kinds)
    assert without_pid(results) == undisturbed
    assert {entry.summary["kind"] for entry in read_entries(store, "f").values()} == {"good"}
    assert "no lying-" in capsys.readouterr().err


def test_number_of_workers_follows_what_is_asked_for(cluster, store, there):
    asked = []

    def count():
        asked.append(None)
        return 0 if len(asked) < 3 else 2

    units = [Unit(f"u{k}", {"k": k, "there": there, "names": 2}) for k in range(6)]
    solve(cluster, store, units, workers=count)
    assert len([*there.iterdir()]) == 2  # processes that have left their name


def test_workers_that_find_no_room_hold_nothing_up(cluster, store, undisturbed):
    make = Solver.options(num_cpus=1).remote
    assert without_pid(solve(cluster, store, chains(), workers=5, make=make)) == undisturbed


def test_input_error_of_a_unit_is_raised_as_it_is(cluster, store):
    with pytest.raises(InputError, match="alpha") as caught:
        solve(cluster, store, chains(how="refused", at=("1-1",)))
    assert type(caught.value) is InputError
    assert {"0-0.npz", "1-0.npz"} & set(store.list())


def test_unit_that_always_raises_is_named_with_its_cause(cluster, store):
    with pytest.raises(ShardsFailed, match="1-0") as caught:
        solve(cluster, store, chains(how="broken", at=("1-0",)))
    assert "ValueError: cannot be solved" in caught.value.failed["1-0"]


def test_input_error_of_a_constructor_is_raised_as_it_is(cluster, store):
    with pytest.raises(InputError, match="abacus"):
        solve(cluster, store, chains(), make=lambda: Solver.remote(refuses=True))


def test_worker_that_cannot_start_is_reported_with_its_cause(cluster, store):
    with pytest.raises(ShardsFailed, match="OSError: no device"):
        solve(cluster, store, chains(), make=lambda: Solver.remote(raises=True))


@pytest.mark.parametrize(
    "units",
    [
        [Unit("a", {}), Unit("a", {})],
        [Unit("a", {}, "nowhere")],
        [Unit("a", {}, "b"), Unit("b", {}, "a")],
    ],
    ids=["repeated key", "no predecessor", "circle"],
)
def test_impossible_units_are_refused(cluster, store, units):
    with pytest.raises(ValueError, match="unit"):
        solve(cluster, store, units)
