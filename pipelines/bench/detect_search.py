"""Coresets and nearest neighbours against their peers: one run, one thread, CPU seconds."""

import contextlib
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
import psutil
from sklearn.neighbors import NearestNeighbors

from actors.memory_bank.actor import ShardedBank
from actors.memory_bank.coreset import covering_radius, greedy_coreset, two_round_coreset
from actors.memory_bank.index import MemoryBank
from cluster.errors import InputError
from cluster.nodes import Cluster
from cluster.storage import Store
from cluster.threads import limited_threads

FloatArray = npt.NDArray[np.float32]
Row = dict[str, Any]

_PEER_PICKS = 10  # timed of a plain loop, whose picks all cost the same
_CLUSTERS = 200


def clustered(n: int, d: int, seed: int) -> FloatArray:
    """Draw patches (n, d) of 200 Gaussian clusters of several widths."""
    rng = np.random.default_rng(seed)
    centres = 2 * rng.standard_normal((_CLUSTERS, d), dtype=np.float32)
    widths = rng.uniform(0.2, 1.0, (_CLUSTERS, 1)).astype(np.float32)
    which = rng.integers(_CLUSTERS, size=n)
    spread = rng.standard_normal((n, d), dtype=np.float32)
    spread *= widths[which]
    spread += centres[which]
    return spread


def coreset_table(
    n: int = 1_000_000,
    d: int = 81,
    share: float = 0.01,
    *,
    patches: FloatArray | None = None,
    shards: tuple[int, ...] = (2, 4),
    runs: int = 1,
    seed: int = 0,
) -> list[Row]:
    """Choose ``share`` of ``n`` patches by greedy k-centre: plain, ours, and in two rounds.

    Parameters
    ----------
    patches : ndarray (n, d), optional
        Used in place of clusters drawn.
    shards : tuple of int
        Numbers of shards of two rounds.

    Returns
    -------
    list of dict
        ``method``; ``cpu_s`` (median of ``runs``); ``extrapolated``: whether that is the time of
        some picks times their number; ``ratio``: of the plain loop with a product a pick, the
        faster of the two, to it; ``radius`` and ``radius_ratio``, to greedy's.
    """
    X = clustered(n, d, seed) if patches is None else np.ascontiguousarray(patches, np.float32)
    size = max(1, round(share * len(X)))
    methods: dict[str, Callable[[], Any]] = {"greedy": partial(greedy_coreset, X, size, seed=seed)}
    for count in shards:
        methods[f"two rounds, {count} shards"] = partial(
            two_round_coreset, X, size, seed=seed, patches_per_shard=-(-len(X) // count)
        )
    rows = []
    with limited_threads(1):
        for name, loop in (("differences", _by_differences), ("products", _by_products)):
            each = _cpu_seconds(partial(loop, X), runs)[0] / _PEER_PICKS
            rows.append(_row(f"plain loop, {name}", each * size, extrapolated=True))
        plain = rows[-1]["cpu_s"]
        for name, method in methods.items():
            seconds, found = _cpu_seconds(method, runs)
            rows.append(_row(name, seconds, radius=covering_radius(X, X[found.index])))
    # The plain loops choose what greedy chooses, so its radius is theirs.
    greedy = rows[2]["radius"]
    for row in rows:
        row["radius"] = row.get("radius", greedy)
        row["radius_ratio"] = row["radius"] / greedy if greedy else 1.0
        row["ratio"] = plain / row["cpu_s"]
    return rows


def search_table(
    cluster: Cluster,
    store: Store,
    n_bank: int = 100_000,
    d: int = 81,
    n_queries: int = 10_000,
    k: int = 5,
    *,
    patches: FloatArray | None = None,
    noise: bool = False,
    runs: int = 3,
    seed: int = 0,
) -> list[Row]:
    """Search ``k`` neighbours: scikit-learn, FAISS called directly, ours, and ours in an actor.

    Parameters
    ----------
    store : Store
        Where the bank of the actor is kept.
    patches : ndarray (n_bank + n_queries, d), optional
        Used in place of clusters drawn; split at random.
    noise : bool
        Draw patches without structure: the worst case of ``ivf`` and ``hnsw``.

    Returns
    -------
    list of dict
        ``method``; ``cpu_s``, the median of ``runs``, of driver and actor together where there
        is one; ``ratio`` to FAISS flat; ``recall`` of the true neighbours; ``built_cpu_s``.
        An index that cannot reach its recall has a ``note`` and no time.
    """
    if patches is None:
        n = n_bank + n_queries
        rng = np.random.default_rng(seed)
        drawn = rng.standard_normal((n, d), dtype=np.float32) if noise else clustered(n, d, seed)
    else:
        drawn = np.asarray(patches, dtype=np.float32)[: n_bank + n_queries]
    order = np.random.default_rng(seed + 1).permutation(len(drawn))
    bank, queries = drawn[order[:n_bank]], drawn[order[n_bank:]]
    with limited_threads(1):
        rows, true = _peers(bank, queries, k, runs)
        for kind in ("flat", "ivf", "hnsw"):
            rows.append(_ours(bank, queries, k, kind, true, runs))
    rows.append(_through_actor(cluster, store, bank, queries, k, true, runs))
    flat = next(row["cpu_s"] for row in rows if row["method"] == "FAISS flat")
    return [row | {"ratio": row["cpu_s"] and flat / row["cpu_s"]} for row in rows]


def _peers(
    bank: FloatArray, queries: FloatArray, k: int, runs: int
) -> tuple[list[Row], FloatArray]:
    """Time them; and return the true distance (n_queries,) of the k-th neighbour."""
    rows = []
    for algorithm in ("brute", "auto"):
        model = NearestNeighbors(n_neighbors=k, algorithm=algorithm)
        built, _ = _cpu_seconds(partial(model.fit, bank), 1)
        seconds, found = _cpu_seconds(partial(model.kneighbors, queries), runs)
        rows.append(_row(f"scikit-learn {algorithm}", seconds, recall=1.0, built_cpu_s=built))
    index = faiss.IndexFlatL2(bank.shape[1])
    built, _ = _cpu_seconds(lambda: index.add(bank), 1)
    seconds, _ = _cpu_seconds(lambda: index.search(queries, k), runs)
    rows.append(_row("FAISS flat", seconds, recall=1.0, built_cpu_s=built))
    return rows, found[0][:, -1]


def _ours(
    bank: FloatArray, queries: FloatArray, k: int, kind: str, true: FloatArray, runs: int
) -> Row:
    try:
        built, memory = _cpu_seconds(lambda: MemoryBank(bank, kind=kind), 1)
    except InputError as error:
        return _row(f"ours, {kind}", None, note=str(error))
    memory.search(queries[:1], 1)
    seconds, found = _cpu_seconds(lambda: memory.search(queries, k), runs)
    setting = {name: value for name, value in memory.tuning.items() if name != "recall"}
    recall = _recall(found[0], true)
    return _row(f"ours, {kind}", seconds, recall=recall, built_cpu_s=built, **setting)


def _through_actor(
    cluster: Cluster,
    store: Store,
    bank: FloatArray,
    queries: FloatArray,
    k: int,
    true: FloatArray,
    runs: int,
) -> Row:
    MemoryBank(bank).save(store, "bank")
    with ShardedBank.open(cluster, store, "bank") as served:
        assert served is not None
        served.search(queries[:1], 1)
        seconds = []
        for _ in range(runs):
            before = _actor_cpu_s() + time.process_time()
            found = served.search(queries, k)
            seconds.append(_actor_cpu_s() + time.process_time() - before)
    return _row(
        "ours, flat in an actor", statistics.median(seconds), recall=_recall(found[0], true)
    )


def _actor_cpu_s() -> float:
    """CPU seconds of the bank's actors on this machine, which Ray names after their class."""
    spent = 0.0
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, IndexError):
            if process.cmdline()[0].startswith("ray::BankActor"):
                times = process.cpu_times()
                spent += times.user + times.system
    return spent


def _by_differences(X: FloatArray) -> FloatArray:
    """Some picks as they are usually written."""
    nearest, at = np.full(len(X), np.inf, dtype=np.float32), 0
    for _ in range(_PEER_PICKS):
        nearest = np.minimum(nearest, np.linalg.norm(X - X[at], axis=1))
        at = int(nearest.argmax())
    return nearest


def _by_products(X: FloatArray) -> FloatArray:
    """Some picks with a matrix-vector product each, in place."""
    squares = np.einsum("ij,ij->i", X, X)
    nearest, at = np.full(len(X), np.inf, dtype=np.float32), 0
    for _ in range(_PEER_PICKS):
        apart = X @ (-2 * X[at])
        apart += squares
        apart += squares[at]
        np.minimum(nearest, apart, out=nearest)
        at = int(nearest.argmax())
    return nearest


def _recall(distance: FloatArray, true: FloatArray) -> float:
    # By distance: one of two equally near rows is as good as the other.
    return float((distance <= true[:, None] * (1 + 1e-5)).mean())


def _row(method: str, seconds: float | None, *, extrapolated: bool = False, **more: Any) -> Row:
    return {"method": method, "cpu_s": seconds, "extrapolated": extrapolated, **more}


def _cpu_seconds(work: Callable[[], Any], runs: int) -> tuple[float, Any]:
    """Return the median of ``runs``, and the last answer."""
    seconds, answer = [], None
    for _ in range(runs):
        started = time.process_time()
        answer = work()
        seconds.append(time.process_time() - started)
    return statistics.median(seconds), answer
