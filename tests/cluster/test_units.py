import numpy as np
import pytest
from remote_work import Solver

from cluster.errors import InputError, ShardsFailed
from cluster.storage import Store
from cluster.units import Unit, solve_units

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


def solve(cluster, store, units, workers=2, make=None, fingerprint="f", **options):
    make = make or Solver.options(num_cpus=0.5).remote
    return solve_units(
        cluster, make, units, store, workers=workers, fingerprint=fingerprint, label="test",
        **options,
    )  # fmt: skip


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
    units = chains(tmp_path, "killed", at=("0-1", "2-0", "1-2"))
    results = solve(cluster, store, units, in_flight_per_worker=in_flight)
    assert without_pid(results) == undisturbed
    assert len({int(result["pid"]) for result in results.values()}) >= 3
    assert "unit 2-0 again after ActorDiedError" in capsys.readouterr().err


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
    before = store.checksum("1-2.npz")
    assert without_pid(solve(cluster, store, chains())) == undisturbed
    assert store.checksum("1-2.npz") == before
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


def test_idle_worker_takes_what_is_ready(cluster, store):
    # One long unit, many short ones: whoever is not on the long one does all of the rest.
    units = [Unit("long", {"k": 0, "seconds": 2.0})]
    units += [Unit(f"short-{k}", {"k": k, "seconds": 0.02}) for k in range(12)]
    pids = {key: int(result["pid"]) for key, result in solve(cluster, store, units).items()}
    assert len(set(pids.values())) == 2
    assert sum(pid == pids["long"] for pid in pids.values()) <= 3


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
