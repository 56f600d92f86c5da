"""How a memory bank is searched: exactly on cores or on CUDA, or by an index tuned for recall."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from actors.memory_bank.exact import FlatSearch
from cluster.errors import InputError

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

KINDS = ("flat", "ivf", "hnsw", "cuml")
# `auto`: CPU seconds of 10,000 queries, d = 64, k = 5, one core, ivf and hnsw at recall ≥ 0.99, on
# mixtures of 200 Gaussians / frames of panels (medians of 3 runs; 2.8 GHz, AVX-512):
#   bank         flat         ivf          hnsw         built in: ivf    hnsw
#   10,000       0.50 / 0.56  0.06 / 0.30  0.18 / 0.37  0.5 / 0.6        1.5 / 1.8
#   30,000       0.92 / 0.99  0.11 / 0.57  0.36 / 0.71  2.0 / 2.7        4.3 / 7.4
#   100,000      2.4 / 3.1    0.30 / 1.9   1.1 / 1.2    8.3 / 14         19 / 38
#   300,000      7.8 / 6.2    0.92 / 4.1                36 / 37
# ivf is the faster one at every size, but below this a second a 10,000 queries is all there is to
# gain for inexact answers. Where patches have no structure it is slower, and not taken.
AUTO_FLAT_BELOW = 50_000
# Of the lists; ivf takes about as long as flat at the first, five times as long at the second.
_AUTO_SHARE, _SHARE = 0.05, 0.25
_HELD_OUT = 2_000
_HELD_OUT_NEIGHBOURS = 5
_LINKS, _CONSTRUCTION_DEPTH = 16, 80
_LISTS_PER_ROOT = 4  # lists = 4 √size, as FAISS advises
_SMALLEST_TRAINED = 4_000  # below, k-means has too few rows a list and flat is as fast
_PATCHES_PER_LIST, _ROUNDS = 48, 8
_DEEPEST = 1_024  # efSearch beyond which hnsw is slower than flat
_FINEST = 16  # settings are told apart to a 16th


class _OutOfReach(InputError):
    """An index that would have to look at nearly everything."""


@dataclass
class Engine:
    """An index on the cores, and what answers with it.

    Attributes
    ----------
    index : faiss.Index
        What is saved.
    fast : object, optional
        Its copy on a GPU, or cuML's model.
    tuning : dict
        ``nprobe`` or ``efSearch``, and the ``recall`` measured with it.
    """

    kind: str
    index: Any
    fast: Any = None
    tuning: dict[str, float] = field(default_factory=dict)

    @cached_property
    def rows(self) -> FloatArray:
        """What the index holds (ntotal, d), in order."""
        return self.index.reconstruct_n(0, self.index.ntotal)

    @cached_property
    def exact(self) -> FlatSearch:
        """Exact search on the cores."""
        return FlatSearch(self.rows)

    def search(self, queries: FloatArray, k: int) -> tuple[FloatArray, IntArray]:
        """Return squared distances and rows of the k nearest, sorted, ties by lowest row."""
        if self.kind == "cuml":
            distance, index = (np.asarray(part) for part in self.fast.kneighbors(queries, k))
            return _sorted(distance.astype(np.float32) ** 2, index.astype(np.int64))
        if self.kind == "flat" and self.fast is None:
            return self.exact.search(queries, k)
        distance, index = (self.fast or self.index).search(queries, k)
        # An index that looks into few lists may find fewer than k.
        short = np.flatnonzero((index < 0).any(axis=1))
        if len(short):
            distance[short], index[short] = self.exact.search(queries[short], k)
        return _sorted(distance, index)


def build_engine(patches: FloatArray, kind: str, device: str, recall: float, seed: int) -> Engine:
    """Index ``patches`` (n, d); ``auto`` keeps ``flat`` where tuning shows no gain."""
    if kind == "auto":
        kind = "flat"
        if len(patches) >= AUTO_FLAT_BELOW:
            with suppress(_OutOfReach):
                return engine_on(*_tuned(patches, "ivf", recall, seed, _AUTO_SHARE), device)
    if kind in ("ivf", "hnsw") and len(patches) >= _SMALLEST_TRAINED:
        return engine_on(*_tuned(patches, kind, recall, seed, _SHARE), device)
    index = faiss.IndexFlatL2(patches.shape[1])
    index.add(patches)
    return engine_on(index, "cuml" if kind == "cuml" else "flat", {}, device)


def engine_on(index: Any, kind: str, tuning: dict[str, float], device: str) -> Engine:
    """Return what searches ``index`` on ``device``.

    Raises
    ------
    InputError
        When the device or cuML is not there.
    """
    if kind not in KINDS:
        raise InputError("memory bank", "kind", ", ".join(KINDS), repr(kind), "Build it again.")
    if device not in ("auto", "cpu", "cuda"):
        raise InputError("--device", "unknown", "auto, cpu or cuda", repr(device))
    if "nprobe" in tuning:
        index.nprobe = int(tuning["nprobe"])
    if "efSearch" in tuning:
        index.hnsw.efSearch = int(tuning["efSearch"])
    fast = None
    if kind == "cuml":
        fast = _cuml(index)
    elif device != "cpu" and _gpus() and kind != "hnsw":
        fast = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, index)
    elif device == "cuda":
        raise InputError(
            "--device cuda",
            "no FAISS for CUDA here" if kind != "hnsw" else "hnsw runs on cores alone",
            "faiss built for CUDA, a CUDA device, and kind flat or ivf",
            f"faiss {faiss.__version__}, {_gpus()} devices",
            "Install faiss-gpu-cuvs on that machine, or use --device cpu.",
        )
    return Engine(kind, index, fast, tuning)


def _gpus() -> int:
    return int(faiss.get_num_gpus()) if hasattr(faiss, "StandardGpuResources") else 0


def _cuml(index: Any) -> Any:
    try:
        from cuml.neighbors import NearestNeighbors
    except ImportError as error:
        raise InputError(
            "--kind cuml",
            "cuML is not installed here",
            fix="Install cuml-cu12 on a machine with a CUDA device, or use --kind flat.",
        ) from error
    return NearestNeighbors(algorithm="brute").fit(index.reconstruct_n(0, index.ntotal))


def _tuned(
    patches: FloatArray, kind: str, recall: float, seed: int, most: float
) -> tuple[Any, str, dict[str, float]]:
    """Index all patches; choose the setting on some that the index did not hold yet.

    Raises
    ------
    _OutOfReach
        When ``most`` of the lists, or the deepest search of hnsw, find too few.
    """
    n = len(patches)
    held = np.random.default_rng(seed).choice(n, min(_HELD_OUT, n // 10), replace=False)
    kept = np.delete(np.arange(n), held)
    index = _empty(kind, patches[kept], n)
    index.add(patches[kept])
    k = min(_HELD_OUT_NEIGHBOURS, len(kept))
    true = FlatSearch(np.ascontiguousarray(patches[kept])).search(patches[held], k)[0][:, -1]
    # Half of the misses allowed are left to chance: other queries than these will come, and hnsw
    # is built once more, with them.
    aim = (1 + recall) / 2
    largest = max(1, int(most * index.nlist)) if kind == "ivf" else min(_DEEPEST, len(kept))

    def reached(setting: int) -> float:
        _set(index, kind, setting)
        found = index.search(patches[held], k)[0]
        # By distance, not by row: one of two equally near rows is as good as the other.
        return float((found <= true[:, None] * (1 + 1e-5)).mean())

    # Doubled until it is enough, then halved in between: cheap settings are tried most.
    below, setting = 0, min(k, largest)
    while (best := reached(setting)) < aim and setting < largest:
        below, setting = setting, min(largest, 2 * setting)
    if best < recall:
        raise _OutOfReach(
            "memory bank", f"recall of {kind}", recall, f"{best:.4f}", "Use the kind flat: exact."
        )
    while setting - below > max(1, below // _FINEST):
        middle = (below + setting) // 2
        if (found := reached(middle)) >= aim:
            setting, best = middle, found
        else:
            below = middle
    # Rows keep the order of the patches, which those held out at first would lose.
    whole = _empty(kind, patches[kept], n) if kind == "hnsw" else index
    if kind == "ivf":
        whole.reset()
    whole.add(patches)
    name = _set(whole, kind, setting)
    return whole, kind, {name: setting, "recall": best}


def _empty(kind: str, patches: FloatArray, n: int) -> Any:
    d = patches.shape[1]
    index: Any
    if kind == "hnsw":
        index = faiss.IndexHNSWFlat(d, _LINKS)
        index.hnsw.efConstruction = _CONSTRUCTION_DEPTH
        return index
    # FAISS's k-means seeds itself with a constant.
    index = faiss.index_factory(d, f"IVF{int(_LISTS_PER_ROOT * n**0.5)},Flat")
    index.cp.niter, index.cp.max_points_per_centroid = _ROUNDS, _PATCHES_PER_LIST
    index.cp.min_points_per_centroid = 1
    index.train(patches)
    return index


def _set(index: Any, kind: str, setting: int) -> str:
    if kind == "ivf":
        index.nprobe = setting
        return "nprobe"
    index.hnsw.efSearch = setting
    return "efSearch"


def _sorted(distance: FloatArray, index: IntArray) -> tuple[FloatArray, IntArray]:
    order = np.lexsort((index, distance), axis=1)
    return np.take_along_axis(distance, order, axis=1), np.take_along_axis(index, order, axis=1)
