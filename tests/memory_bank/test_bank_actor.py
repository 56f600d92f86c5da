"""Banks in actors: merged answers, SIGKILL, several clients, and no torch."""

import os
import signal
import sys

import numpy as np
import pytest
import ray

from actors.memory_bank.actor import bank_actors
from actors.memory_bank.index import MemoryBank
from actors.memory_bank.parts import write_parts
from cluster.errors import InputError


@pytest.fixture(scope="module")
def patches():
    # Whole numbers: many patches are equally near, and some are in two parts.
    return np.random.default_rng(1).integers(0, 4, (1003, 5)).astype(np.float32)


@pytest.fixture(scope="module")
def queries():
    return np.random.default_rng(2).integers(0, 4, (500, 5)).astype(np.float32)


@pytest.mark.parametrize("parts", [1, 2, 5])
def test_answers_of_parts_are_those_of_one_index(cluster, store, patches, queries, parts):
    distance, index = MemoryBank(patches).search(queries, 6)
    names = write_parts(patches, store, "bank", parts)
    with bank_actors(cluster, store, names) as bank:
        assert sum(bank.sizes()) == 1003
        found = bank.search(queries, 6)
    np.testing.assert_array_equal(found[0], distance)
    np.testing.assert_array_equal(found[1], index)


def test_a_killed_actor_answers_the_same_with_what_was_added(cluster, store, patches, queries):
    names = write_parts(patches[:900], store, "bank", 2)
    with bank_actors(cluster, store, names) as bank:
        assert bank.add(patches[900:]) == 1003
        before = bank.search(queries, 6)
        for actor in bank.actors:
            pid = ray.get(actor.__ray_call__.remote(lambda _: os.getpid()))
            os.kill(pid, signal.SIGKILL)
        after = bank.search(queries, 6)
        others = {ray.get(a.__ray_call__.remote(lambda _: os.getpid())) for a in bank.actors}
    assert pid not in others
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(before[1], MemoryBank(patches).search(queries, 6)[1])


def test_many_clients_ask_at_once_and_no_actor_has_torch(cluster, store, patches, queries):
    @ray.remote(num_cpus=0)
    def client(bank, at):
        return bank.search(queries[at::4], 3)

    with bank_actors(cluster, store, write_parts(patches, store, "bank", 1)) as bank:
        answers = ray.get([client.remote(bank, at) for at in range(4)])
        loaded = ray.get(bank.actors[0].__ray_call__.remote(lambda _: set(sys.modules)))
    assert "faiss" in loaded
    assert "torch" not in loaded
    distance, index = MemoryBank(patches).search(queries, 3)
    for at, (near, rows) in enumerate(answers):
        np.testing.assert_array_equal(near, distance[at::4])
        np.testing.assert_array_equal(rows, index[at::4])


def test_adding_twice_changes_nothing_and_adding_to_another_size_is_refused(
    cluster, store, patches
):
    with bank_actors(cluster, store, write_parts(patches[:50], store, "bank", 1)) as bank:
        actor = bank.actors[0]
        sizes = [ray.get(actor.add.remote(patches[50:60], 50)) for _ in range(2)]
        assert sizes == [60, 60]
        with pytest.raises(InputError, match="size: expected 20, got 60"):
            ray.get(actor.add.remote(patches[50:60], 20))


def test_bad_questions_and_banks_are_refused_in_the_driver(cluster, store, patches, queries):
    with bank_actors(cluster, store, write_parts(patches, store, "bank", 2)) as bank:
        with pytest.raises(InputError, match=r"expected 1 to 1003, got 1004"):
            bank.search(queries, 1004)
        with pytest.raises(InputError, match="expected 5, as in the memory bank, got 3"):
            bank.search(queries[:, :3], 2)
    with (
        pytest.raises(InputError, match="no memory bank here"),
        bank_actors(cluster, store, ["other"]),
    ):
        pass
    with pytest.raises(InputError, match="parts: expected 1 to 1003"):
        write_parts(patches, store, "bank", 1004)
