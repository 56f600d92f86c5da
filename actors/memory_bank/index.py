"""The memory bank: patches in a FAISS index, searched for nearest neighbours; no torch, no Ray."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from actors.memory_bank.checks import FORMAT, checked_patches
from actors.memory_bank.engines import KINDS, Engine, build_engine, engine_on
from cluster.errors import InputError
from cluster.storage import Store
from cluster.threads import limited_threads

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

_REBUILD = "Build the memory bank again (`tenfold fpcb train`)."


class MemoryBank:
    """Patches that normal panels are made of, searched by Euclidean distance.

    Parameters
    ----------
    patches : array (size, d), finite
    kind : str
        ``flat`` (exact), ``ivf``, ``hnsw`` (both tuned to ``recall``), ``cuml`` (exact, on CUDA),
        or ``auto``: by size, see `actors.memory_bank.engines`.
    device : str
        ``cpu``, ``cuda``, or ``auto``: CUDA where this FAISS drives it.
    recall : float
        Share of the true nearest neighbours that ``ivf`` and ``hnsw`` must find on patches held
        out.
    threads : int
        Of a search. Building takes one, so that the index is the same everywhere.
    seed : int
        Of which patches ``ivf`` and ``hnsw`` are tuned on.

    Attributes
    ----------
    kind, size, dim
        What the bank has become.
    feature_version, about
        As they were saved.

    Raises
    ------
    InputError
        For no patches, patches that are not finite, an unknown kind or device, or one that is not
        installed here.
    """

    def __init__(
        self,
        patches: npt.ArrayLike,
        *,
        kind: str = "flat",
        device: str = "auto",
        recall: float = 0.99,
        threads: int = 1,
        seed: int = 0,
    ) -> None:
        if kind not in (*KINDS, "auto"):
            raise InputError("--kind", "unknown", f"auto or one of {', '.join(KINDS)}", repr(kind))
        if not 0 < recall <= 1:
            raise InputError("--recall", "out of range", "above 0, at most 1", recall)
        self.asked, self.device, self.recall, self.threads = kind, device, recall, threads
        self.seed, self.feature_version = seed, ""
        self.about: dict[str, Any] = {}
        self._build(checked_patches(patches))

    def _build(self, patches: FloatArray) -> None:
        with limited_threads(1):
            self._adopt(build_engine(patches, self.asked, self.device, self.recall, self.seed))

    def _adopt(self, engine: Engine) -> None:
        self._engine = engine
        self.kind, self.size, self.dim = engine.kind, engine.index.ntotal, engine.index.d

    @property
    def tuning(self) -> dict[str, float]:
        """What ``ivf`` or ``hnsw`` is set to, and the recall measured with it."""
        return dict(self._engine.tuning)

    def reconstruct(self, index: npt.ArrayLike) -> FloatArray:
        """Return the patches (…, d) with the indices (…)."""
        return self._engine.rows[np.asarray(index, dtype=np.int64)]

    def cut(self, start: int, end: int, device: str) -> MemoryBank:
        """Return a bank of rows ``start`` to ``end``, of the same kind, on ``device``."""
        return MemoryBank(
            self._engine.rows[start:end],
            kind=self.kind,
            device=device,
            recall=self.recall,
            threads=self.threads,
            seed=self.seed,
        )

    def add(self, patches: npt.ArrayLike) -> None:
        """Append patches: the bank is the same as one built from all of them at once.

        ``ivf`` and ``hnsw`` are trained and tuned again, so add in few, large batches.
        """
        more = checked_patches(patches, self.dim)
        self._build(np.concatenate([self._engine.rows, more]))

    def search(self, queries: npt.ArrayLike, k: int) -> tuple[FloatArray, IntArray]:
        """Return the k nearest patches of each query.

        Parameters
        ----------
        queries : array (n, d), finite
        k : int, 1 to ``size``

        Returns
        -------
        distance : ndarray (n, k), float32
            Euclidean, rising.
        index : ndarray (n, k), int64
            Of equal distances the lowest goes first.

        Raises
        ------
        InputError
            For queries of another width or that are not finite, or a k larger than the bank.
        """
        if not 1 <= k <= self.size:
            raise InputError(
                "k",
                "number of neighbours",
                f"1 to {self.size}, the size of the memory bank",
                k,
                "Ask for fewer neighbours or build a larger bank.",
            )
        Q = checked_patches(queries, self.dim, "queries")
        with limited_threads(self.threads):
            squares, index = self._engine.search(Q, k)
        return np.sqrt(np.maximum(squares, 0)), index

    def save(
        self,
        store: Store,
        name: str,
        *,
        about: Mapping[str, Any] | None = None,
        feature_version: str | None = None,
    ) -> list[str]:
        """Write the bank as ``<name>.json`` and the index beside it, all or nothing.

        ``about`` (plain values) and ``feature_version`` are kept in the JSON; without them, those
        of the bank that was loaded.

        The index is named after its checksum and the JSON, written last, names it: a process that
        dies while saving leaves the bank that was there before.

        Returns
        -------
        list of str
            The files written.
        """
        self.about = self.about if about is None else dict(about)
        if feature_version is not None:
            self.feature_version = feature_version
        data = faiss.serialize_index(self._engine.index).tobytes()
        checksum = _checksum(data)
        file = _index_file(name, checksum)
        store.write_bytes(file, data)
        store.write_json(
            f"{name}.json",
            {
                "format": FORMAT,
                "index": file,
                "blake2b": checksum,
                "kind": self.kind,
                "asked": self.asked,
                "dim": self.dim,
                "size": self.size,
                "metric": "euclidean",
                "recall": self.recall,
                "seed": self.seed,
                "tuning": self.tuning,
                "feature_version": self.feature_version,
                "about": self.about,
            },
        )
        for old in store.list(f"{name}."):
            if old.endswith(".faiss") and old != file:
                store.delete(old)
        return [f"{name}.json", file]

    @classmethod
    def load(
        cls,
        store: Store,
        name: str,
        *,
        device: str = "auto",
        threads: int = 1,
        feature_version: str | None = None,
    ) -> MemoryBank:
        """Read what `save` wrote.

        Raises
        ------
        InputError
            When a file is missing, torn or not the one written (the index's checksum is taken
            before FAISS sees a byte of it), or when it is of another format, or of another
            ``feature_version`` than the one given.
        """
        facts = _facts(store, f"{name}.json")
        where = f"{store}/{name}.json"
        if facts["format"] != FORMAT:
            raise InputError(where, "format", FORMAT, facts["format"], _REBUILD)
        if feature_version is not None and facts["feature_version"] != feature_version:
            raise InputError(
                where,
                "feature version",
                feature_version,
                facts["feature_version"],
                "Build the memory bank again, or use features of that version.",
            )
        bank = cls.__new__(cls)
        bank.asked, bank.recall = facts["asked"], facts["recall"]
        bank.device, bank.threads, bank.seed = device, threads, facts["seed"]
        bank.feature_version, bank.about = facts["feature_version"], facts["about"]
        index = _read_index(store, _index_file(name, facts["blake2b"]), facts["blake2b"])
        if (index.d, index.ntotal) != (facts["dim"], facts["size"]):
            stated = f"{facts['size']} x {facts['dim']}"
            got = f"{index.ntotal} x {index.d}"
            raise InputError(where, "size of the index", stated, got, _REBUILD)
        bank._adopt(engine_on(index, facts["kind"], facts["tuning"], device))
        return bank


_FACTS: dict[str, type | tuple[type, ...]] = {
    "format": int,
    "blake2b": str,
    "kind": str,
    "asked": str,
    "dim": int,
    "size": int,
    "recall": (int, float),
    "seed": int,
    "tuning": dict,
    "feature_version": str,
    "about": dict,
}


def _facts(store: Store, name: str) -> dict[str, Any]:
    where = f"{store}/{name}"
    try:
        facts = store.read_json(name)
    except FileNotFoundError as error:
        raise InputError(where, "no memory bank here", fix=_REBUILD) from error
    except (ValueError, OSError) as error:
        got = str(error).splitlines()[0]
        raise InputError(where, "cannot be read", "JSON", got, _REBUILD) from error
    if not isinstance(facts, dict):
        raise InputError(where, "content", "a JSON object", type(facts).__name__, _REBUILD)
    for key, kind in _FACTS.items():
        if not isinstance(facts.get(key), kind):
            raise InputError(where, key, "as it was written", repr(facts.get(key)), _REBUILD)
    return facts


def _read_index(store: Store, name: str, checksum: str) -> Any:
    where = f"{store}/{name}"
    try:
        data = store.read_bytes(name)
    except OSError as error:
        got = str(error).splitlines()[0]
        raise InputError(where, "index cannot be read", got=got, fix=_REBUILD) from error
    if (found := _checksum(data)) != checksum:
        raise InputError(where, "checksum: the index is damaged", checksum, found, _REBUILD)
    try:
        return faiss.deserialize_index(np.frombuffer(data, dtype=np.uint8))
    except RuntimeError as error:
        got = str(error).splitlines()[0]
        raise InputError(where, "index", "one of this FAISS", got, _REBUILD) from error


def _checksum(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def _index_file(name: str, checksum: str) -> str:
    return f"{name}.{checksum[:12]}.faiss"
