"""A data set of panels on disk: which files there are, who is in them, and whether it is whole.

DIR/data.json      what it is; written last: a data set without it is unfinished
DIR/rejects.csv    bundles that were left out, and why
DIR/panels/…       points, a row a panel      } split=…/scenario=…/00000.parquet,
DIR/features/…     features, a row a panel    } and a manifest of finished shards
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cluster.errors import InputError
from cluster.lock import check_held
from cluster.manifest import MANIFEST, Manifest
from cluster.storage import Store

IntArray = npt.NDArray[np.int64]

PANELS, FEATURES = "panels", "features"
DESCRIPTION = "data.json"
REJECTS = "rejects.csv"
REJECTS_OF_SHARD = "_rejects-"
UNKNOWN = "unknown"  # split or scenario of a panel that does not say


@dataclass(frozen=True, eq=False)
class DataSet:
    """Finished panels, or features of panels.

    Attributes
    ----------
    store : Store
    about : dict
        What `describe` wrote.
    """

    store: Store
    about: Mapping[str, Any]

    def files(self, part: str) -> list[str]:
        """Return the files of ``part`` (PANELS or FEATURES), in the order of the shards."""
        return [f"{part}/{name}" for name in self.about.get(part, {}).get("files", [])]

    @property
    def n_panels(self) -> int:
        """Number of panels."""
        return int(self.about["n_panels"])


def is_data_set(folder: str) -> bool:
    """Tell whether a folder is a data set, finished or not, rather than one of bundles."""
    store = Store(folder)
    names = (DESCRIPTION, f"{PANELS}/{MANIFEST}", f"{FEATURES}/{MANIFEST}")
    return any(store.exists(name) for name in names)


def has_part(folder: str, part: str) -> bool:
    """Tell whether a data set says that it has ``part``, PANELS or FEATURES, whole."""
    store = Store(folder)
    try:
        return part in store.read_json(DESCRIPTION)
    except (OSError, ValueError, TypeError):
        return False  # `open_data_set` says what is wrong


def open_data_set(folder: str, part: str) -> DataSet:
    """Open a finished data set that has ``part``.

    Raises
    ------
    InputError
        When the folder holds none, or an unfinished or damaged one.
    """
    store = Store(folder)
    if not store.exists(DESCRIPTION):
        unfinished = store.exists(f"{PANELS}/{MANIFEST}") or store.exists(f"{FEATURES}/{MANIFEST}")
        what = "an unfinished data set" if unfinished else "no data set of panels"
        raise InputError(folder, what, fix="Run the command that makes it, to its end.")
    try:
        data = DataSet(store, store.read_json(DESCRIPTION))
        found = bool(data.files(part)) or data.n_panels == 0
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{folder}/{DESCRIPTION}", "damaged", fix="Make it again.") from error
    if not found:
        fix = "Make it with `tenfold fpcb features`." if part == FEATURES else (
            "Make it with `tenfold fpcb generate`, which keeps the points."
        )  # fmt: skip
        raise InputError(folder, f"a data set without {part}", fix=fix)
    missing = [name for name in data.files(part) if store.size(name) is None]
    if missing:
        raise InputError(f"{folder}/{missing[0]}", "missing", fix="Make the data set again.")
    return data


def withdraw(store: Store, part: str) -> None:
    """Say of a data set that ``part``, if it was whole, is so no longer."""
    if store.exists(DESCRIPTION):
        about = store.read_json(DESCRIPTION)
        if about.pop(part, None) is not None:
            store.write_json(DESCRIPTION, about)


def describe(store: Store, part: str, done: Manifest, more: Mapping[str, Any]) -> DataSet:
    """Write what the data set is, now that ``part`` is whole; other parts stay as they were.

    Files of ``part`` that an earlier run with other options left are removed.
    """
    check_held(store)
    known = store.read_json(DESCRIPTION) if store.exists(DESCRIPTION) else {}
    counts: Counter[str] = Counter()
    for summary in done.summaries:
        counts.update(summary["counts"])
    files: dict[str, dict[str, Any]] = {
        name: {"bytes": size, "blake2b": checksum}
        for entry in done.entries
        for name, (size, checksum) in entry.files.items()
        if not name.startswith(REJECTS_OF_SHARD)
    }
    about = {
        **known,
        **more,
        "n_panels": done.rows,
        "counts": dict(sorted(counts.items())),
        part: {
            "digest": joint_digest(summary["digest"] for summary in done.summaries),
            "bytes": sum(file["bytes"] for file in files.values()),
            "files": dict(sorted(files.items())),
        },
    }
    for name in (store / part).list():
        if name.startswith(("split=", REJECTS_OF_SHARD)) and name not in done.files:
            (store / part).delete(name)
    store.write_json(DESCRIPTION, about)
    return DataSet(store, about)


def file_name(split: str | None, scenario: str | None, index: int) -> str:
    """Return where the panels of one split and scenario lie, ``index`` telling shards apart."""
    return f"split={split or UNKNOWN}/scenario={scenario or UNKNOWN}/{index:05d}.parquet"


def by_group(table: pa.Table) -> Iterator[tuple[str | None, str | None, pa.Table]]:
    """Yield the rows of each split and scenario, in the order of their names."""
    pairs = list(zip(*(table[name].to_pylist() for name in ("split", "scenario")), strict=True))
    for split, scenario in sorted(set(pairs), key=str):
        rows = [i for i, pair in enumerate(pairs) if pair == (split, scenario)]
        yield split, scenario, table.take(rows) if len(rows) < len(pairs) else table


def summary_of(table: pa.Table, files: Sequence[str], digests: Sequence[str]) -> dict[str, Any]:
    """Return what a shard says of its panels."""
    groups = by_group(table)
    counts = {f"{split or UNKNOWN}/{name or UNKNOWN}": len(rows) for split, name, rows in groups}
    return {
        "rows": len(table),
        "files": [*files],
        "digest": joint_digest(digests),
        "counts": counts,
    }


def joint_summary(parts: Sequence[Mapping[str, Any]], more_files: Sequence[str]) -> dict[str, Any]:
    """Return the summary of a shard that wrote several groups, and files that are no panels."""
    counts: Counter[str] = Counter()
    for part in parts:
        counts.update(part["counts"])
    return {
        "rows": sum(part["rows"] for part in parts),
        "files": [*(name for part in parts for name in part["files"]), *more_files],
        "digest": joint_digest(part["digest"] for part in parts),
        "counts": dict(counts),
    }


def row_digests(beside: pa.Table, *arrays: Sequence[npt.NDArray[Any]]) -> str:
    """Hash panels: what is known of each, and its arrays; the order of rows makes no difference."""
    total = 0
    for values, *parts in zip(beside.to_pylist(), *arrays, strict=True):
        known = sorted((name, value) for name, value in values.items() if value is not None)
        digest = hashlib.blake2b(repr(known).encode(), digest_size=8)
        for part in parts:
            digest.update(np.ascontiguousarray(part).data)
        total += int.from_bytes(digest.digest(), "little")
    return f"{total % 2**64:016x}"


def joint_digest(parts: Iterable[str]) -> str:
    """Join digests of shards: the order of panels, and how they are cut, make no difference."""
    return f"{sum(int(part, 16) for part in parts) % 2**64:016x}"
