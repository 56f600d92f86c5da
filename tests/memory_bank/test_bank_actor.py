"""Banks in actors: merged answers, SIGKILL, several clients, and no torch."""

import os
import signal
import sys

import numpy as np
import pytest
import ray

from actors.memory_bank import actor
from actors.memory_bank.actor import ShardedBank
from actors.memory_bank.index import MemoryBank
from actors.memory_bank.part import BankPart
from cluster.errors import InputError
from cluster.resources import engine_resources


@pytest.fixture(scope="module")
def patches():
    # Whole numbers: many patches are equally near, and some are in two parts.
    return np.random.default_rng(1).integers(0, 4, (1003, 5)).astype(np.float32)


@pytest.fixture(scope="module")
def queries():
    return np.random.default_rng(2).integers(0, 4, (500, 5)).astype(np.float32)


@pytest.mark.parametrize("actors", [1, 2, 5])
def test_answers_of_actors_are_those_of_one_index(cluster, store, patches, queries, actors):
    whole = MemoryBank(patches)
    whole.save(store, "models/bank")
    distance, index = whole.search(queries, 6)
    with ShardedBank.open(cluster, store, "models/bank", actors=actors) as bank:
        assert bank.size == 1003
        found = bank.search(queries, 6)
        rows = bank.reconstruct(index)
    np.testing.assert_array_equal(found[0], distance)
    np.testing.assert_array_equal(found[1], index)
    np.testing.assert_array_equal(rows, patches[index])


def kill(bank_actor):
    pid = ray.get(bank_actor.__ray_call__.remote(lambda _: os.getpid()))
    os.kill(pid, signal.SIGKILL)
    return pid


def test_a_killed_actor_answers_the_same_with_what_was_added(cluster, store, patches, queries):
    MemoryBank(patches[:900]).save(store, "bank")
    with ShardedBank.open(cluster, store, "bank", actors=2) as bank:
        bank.add(patches[900:])
        before = bank.search(queries, 6)
        killed = [kill(one) for one in bank.actors]
        after = bank.search(queries, 6)
        now = [ray.get(a.__ray_call__.remote(lambda _: os.getpid())) for a in bank.actors]
        bank.save(store, "copy")
    assert not {*killed} & {*now}
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(before[1], MemoryBank(patches).search(queries, 6)[1])
    assert MemoryBank.load(store, "copy").size == 1003


def test_many_clients_ask_at_once_and_no_actor_has_torch(cluster, store, patches, queries):
    @ray.remote(num_cpus=0)
    def client(bank, at):
        return bank.search(queries[at::4], 3)

    MemoryBank(patches).save(store, "bank")
    with ShardedBank.open(cluster, store, "bank") as bank:
        answers = ray.get([client.remote(bank, at) for at in range(4)])
        loaded = ray.get(bank.actors[0].__ray_call__.remote(lambda _: set(sys.modules)))
    assert "faiss" in loaded
    assert "torch" not in loaded
    distance, index = MemoryBank(patches).search(queries, 3)
    for at, (near, rows) in enumerate(answers):
        np.testing.assert_array_equal(near, distance[at::4])
        np.testing.assert_array_equal(rows, index[at::4])


def test_adding_twice_changes_nothing_and_adding_to_another_size_is_refused(store, patches):
    MemoryBank(patches[:50]).save(store, "bank")
    part = BankPart(store, "bank", 0, 2, "auto", 1)
    for _ in range(2):
        part.add(patches[50:60], 50)
        part.reload()
        assert part.whole == 60
    with pytest.raises(InputError, match="size: expected 20, got 60"):
        part.add(patches[50:60], 20)
    with pytest.raises(InputError, match="size: expected 50, got 60"):
        part.add(patches[500:510], 50)


def test_batches_of_a_search_are_put_together_in_order(
    cluster, store, patches, queries, monkeypatch
):
    monkeypatch.setattr(actor, "_BATCH", 123)
    MemoryBank(patches).save(store, "bank")
    with ShardedBank.open(cluster, store, "bank", actors=2) as bank:
        found = bank.search(queries, 4)
    np.testing.assert_array_equal(found[1], MemoryBank(patches).search(queries, 4)[1])


def test_bad_questions_and_banks_are_refused_in_the_driver(cluster, store, patches, queries):
    MemoryBank(patches[:3]).save(store, "bank")
    with ShardedBank.open(cluster, store, "bank", actors=2) as bank:
        assert bank.search(queries, 3)[1].shape == (500, 3)
        with pytest.raises(InputError, match=r"expected 1 to 3, the size .*got 4"):
            bank.search(queries, 4)
        with pytest.raises(InputError, match="expected 5, as in the memory bank, got 3"):
            bank.search(queries[:, :3], 2)
    for name, actors, message in (("other", 1, "no memory bank"), ("bank", 4, "actors: expected")):
        with (
            pytest.raises(InputError, match=message),
            ShardedBank.open(cluster, store, name, actors=actors),
        ):
            pass


def test_a_run_without_a_bank_opens_none(cluster, store):
    with ShardedBank.open(cluster, store, None) as bank:
        assert bank is None


def test_an_actor_on_cuda_asks_for_a_device_of_its_own():
    assert engine_resources("faiss:cuda", num_cpus=0) == {
        "num_cpus": 0,
        "num_gpus": 1,
        "resources": {"cuda": 1},
    }
    assert engine_resources("faiss", num_cpus=0) == {"num_cpus": 0}


def test_cuda_that_no_machine_offers_is_refused_and_not_waited_for(cluster, store, patches):
    MemoryBank(patches).save(store, "bank")
    with (
        pytest.raises(InputError, match=r"memory bank: resources of one machine.*cuda 1"),
        ShardedBank.open(cluster, store, "bank", device="cuda"),
    ):
        pass
