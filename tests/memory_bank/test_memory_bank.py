"""Search against scikit-learn, files that are damaged, and input that cannot be answered."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors

from actors.memory_bank import engines, exact
from actors.memory_bank.exact import FlatSearch
from actors.memory_bank.index import MemoryBank
from actors.memory_bank.merge import merge_nearest
from cluster.errors import InputError


def clustered(n, d, seed):
    rng = np.random.default_rng(seed)
    centres = 3 * np.random.default_rng(99).standard_normal((30, d))
    return (centres[rng.integers(30, size=n)] + rng.standard_normal((n, d))).astype(np.float32)


def brute(bank, queries, k):
    """The definition, ties by lowest row."""
    apart = ((queries[:, None].astype(np.float64) - bank[None]) ** 2).sum(axis=2)
    index = np.argsort(apart, axis=1, kind="stable")[:, :k]
    return np.sqrt(np.take_along_axis(apart, index, axis=1)), index


def test_flat_search_is_that_of_scikit_learn():
    bank, queries = clustered(3000, 20, 1), clustered(700, 20, 2)
    distance, index = MemoryBank(bank).search(queries, 7)
    true, rows = NearestNeighbors(n_neighbors=7, algorithm="brute").fit(bank).kneighbors(queries)
    np.testing.assert_allclose(distance, true, rtol=1e-4)
    np.testing.assert_array_equal(index, rows)


# A grid of few values: ties beyond the groups that are looked into.
@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 400), st.integers(1, 3), st.integers(1, 6))
def test_flat_search_is_exact_and_ties_go_to_the_lowest_row(seed, n, d, values):
    rng = np.random.default_rng(seed)
    bank = rng.integers(0, values, (n, d)).astype(np.float32)
    queries = rng.integers(0, values, (9, d)).astype(np.float32)
    k = int(rng.integers(1, min(n, 12) + 1))
    distance, index = MemoryBank(bank).search(queries, k)
    true, rows = brute(bank, queries, k)
    np.testing.assert_array_equal(index, rows)
    np.testing.assert_allclose(distance, true, rtol=1e-6)


def test_flat_search_does_not_depend_on_blocks(monkeypatch):
    bank, queries = clustered(5000, 9, 3), clustered(300, 9, 4)
    whole = FlatSearch(bank).search(queries, 5)
    monkeypatch.setattr(exact, "_QUERIES", 64)
    monkeypatch.setattr(exact, "_BANK_ROWS", 256)
    blocks = FlatSearch(bank).search(queries, 5)
    np.testing.assert_array_equal(whole[0], blocks[0])
    np.testing.assert_array_equal(whole[1], blocks[1])


@pytest.mark.parametrize("kind", ["ivf", "hnsw"])
def test_tuned_search_finds_the_wanted_share_of_the_nearest(kind):
    bank, queries = clustered(8000, 16, 5), clustered(1000, 16, 6)
    found = MemoryBank(bank, kind=kind, recall=0.99)
    true = brute(bank, queries, 5)[0]
    distance, index = found.search(queries, 5)
    assert found.kind == kind
    assert found.tuning["recall"] >= 0.99
    assert (distance <= true[:, -1:] * (1 + 1e-5)).mean() >= 0.99
    np.testing.assert_allclose(
        distance, np.linalg.norm(bank[index] - queries[:, None], axis=2), rtol=1e-4
    )


def test_structureless_patches_stay_flat_when_the_kind_is_chosen_by_size(monkeypatch):
    monkeypatch.setattr(engines, "AUTO_FLAT_BELOW", 5000)
    noise = np.random.default_rng(1).standard_normal((6000, 32)).astype(np.float32)
    assert MemoryBank(noise, kind="auto").kind == "flat"
    clear = 100 * clustered(6000, 4, 1) // 100
    assert MemoryBank(clear, kind="auto").kind == "ivf"


def test_a_recall_out_of_reach_is_refused(monkeypatch):
    monkeypatch.setattr(engines, "_DEEPEST", 5)
    with pytest.raises(InputError, match=r"recall of hnsw: expected 0.99, got 0\.\d+.*flat"):
        MemoryBank(clustered(6000, 32, 2), kind="hnsw")


def test_small_banks_are_flat_whatever_was_asked():
    assert MemoryBank(clustered(200, 4, 7), kind="ivf").kind == "flat"
    assert MemoryBank(clustered(200, 4, 7), kind="auto").kind == "flat"


@pytest.mark.parametrize("kind", ["flat", "ivf"])
def test_adding_is_building_from_all_at_once(kind):
    patches, queries = clustered(6000, 8, 8), clustered(100, 8, 9)
    grown = MemoryBank(patches[:4500], kind=kind)
    grown.add(patches[4500:])
    whole = MemoryBank(patches, kind=kind)
    assert grown.size == 6000
    np.testing.assert_array_equal(grown.reconstruct(np.arange(6000)), patches)
    for one, other in zip(grown.search(queries, 3), whole.search(queries, 3), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("kind", ["flat", "ivf", "hnsw"])
def test_a_saved_bank_answers_the_same(kind, store):
    bank = MemoryBank(clustered(5000, 8, 10), kind=kind)
    bank.save(store, "models/bank", feature_version="3", about={"share": 0.1})
    loaded = MemoryBank.load(store, "models/bank", feature_version="3")
    assert (loaded.kind, loaded.about, loaded.tuning) == (kind, {"share": 0.1}, bank.tuning)
    queries = clustered(200, 8, 11)
    for one, other in zip(bank.search(queries, 4), loaded.search(queries, 4), strict=True):
        np.testing.assert_array_equal(one, other)


def test_saving_again_replaces_the_index_and_leaves_one(store):
    MemoryBank(clustered(50, 4, 12)).save(store, "bank")
    MemoryBank(clustered(60, 4, 13)).save(store, "bank-2")
    MemoryBank(clustered(70, 4, 13)).save(store, "bank")
    assert MemoryBank.load(store, "bank").size == 70
    assert MemoryBank.load(store, "bank-2").size == 60
    assert len(store.list("bank.")) == 2


def test_a_process_that_dies_while_saving_leaves_the_bank_before(store, monkeypatch):
    MemoryBank(clustered(50, 4, 12)).save(store, "bank")

    def die(name, value):
        raise KeyboardInterrupt

    monkeypatch.setattr(store, "write_json", die)
    with pytest.raises(KeyboardInterrupt):
        MemoryBank(clustered(70, 4, 13)).save(store, "bank")
    assert MemoryBank.load(store, "bank").size == 50


def flip(data):
    return data[:100] + bytes([data[100] ^ 1]) + data[101:]


@pytest.mark.parametrize("damage", [flip, lambda data: data[:-9], lambda data: b""])
def test_a_damaged_index_is_refused(damage, store):
    MemoryBank(clustered(50, 4, 14)).save(store, "bank")
    (file,) = (name for name in store.list("bank.") if name.endswith(".faiss"))
    store.write_bytes(file, damage(store.read_bytes(file)))
    with pytest.raises(InputError, match=r"bank\..*faiss: checksum: the index is damaged"):
        MemoryBank.load(store, "bank")


def test_a_missing_bank_or_index_is_named(store):
    with pytest.raises(InputError, match=r"bank\.json: no memory bank here"):
        MemoryBank.load(store, "bank")
    MemoryBank(clustered(50, 4, 14)).save(store, "bank")
    store.delete(next(name for name in store.list("bank.") if name.endswith(".faiss")))
    with pytest.raises(InputError, match="index cannot be read"):
        MemoryBank.load(store, "bank")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "format: expected 1, got 2"),
        ({"feature_version": "9"}, "feature version: expected 3, got 9"),
        ({"size": 51}, "size of the index: expected 51 x 4, got 50 x 4"),
        ({"dim": "4"}, "dim: expected as it was written"),
        ({"kind": "lsh"}, "kind: expected flat"),
    ],
)
def test_a_bank_of_another_version_is_refused(change, message, store):
    MemoryBank(clustered(50, 4, 14)).save(store, "bank", feature_version="3")
    store.write_json("bank.json", {**store.read_json("bank.json"), **change})
    with pytest.raises(InputError, match=message):
        MemoryBank.load(store, "bank", feature_version="3")


def test_a_torn_description_is_refused(store):
    MemoryBank(clustered(50, 4, 14)).save(store, "bank")
    store.write_bytes("bank.json", store.read_bytes("bank.json")[:40])
    with pytest.raises(InputError, match=r"bank\.json: cannot be read"):
        MemoryBank.load(store, "bank")
    store.write_bytes("bank.json", json.dumps([1]).encode())
    with pytest.raises(InputError, match="a JSON object"):
        MemoryBank.load(store, "bank")


def test_input_that_cannot_be_answered_is_refused():
    bank = MemoryBank(clustered(50, 4, 15))
    queries = clustered(20, 4, 16)
    with pytest.raises(InputError, match=r"k: number of neighbours: expected 1 to 50.*got 51"):
        bank.search(queries, 51)
    with pytest.raises(InputError, match="expected 4, as in the memory bank, got 3"):
        bank.search(queries[:, :3], 1)
    queries[13, 2] = np.nan
    with pytest.raises(InputError, match="queries: row 13"):
        bank.search(queries, 1)
    with pytest.raises(InputError, match="patches: shape: expected at least one row"):
        MemoryBank(np.empty((0, 4), dtype=np.float32))
    with pytest.raises(InputError, match="--kind: unknown"):
        MemoryBank(clustered(50, 4, 15), kind="lsh")


def test_devices_that_are_not_here_are_named():
    pytest.importorskip("faiss")
    with pytest.raises(InputError, match=r"--device cuda: .*FAISS for CUDA"):
        MemoryBank(clustered(50, 4, 15), device="cuda")
    with pytest.raises(InputError, match="cuML is not installed here"):
        MemoryBank(clustered(50, 4, 15), kind="cuml")


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 5))
def test_merging_parts_is_searching_the_whole(seed, parts):
    rng = np.random.default_rng(seed)
    bank = rng.integers(0, 4, (40, 2)).astype(np.float32)
    queries = rng.integers(0, 4, (6, 2)).astype(np.float32)
    found = []
    for rows in np.array_split(np.arange(40), parts):
        distance, index = brute(bank[rows], queries, min(5, len(rows)))
        found.append((distance, rows[index]))
    distance, index = merge_nearest(*zip(*found, strict=True), 5)
    true, rows = brute(bank, queries, 5)
    np.testing.assert_array_equal(index, rows)
    np.testing.assert_array_equal(distance, true)
