"""Keep the good rows of a file and name what is wrong with the others."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from cluster.errors import InputError
from pipelines.news.reading.sources import RawFile, Reject, shown


@dataclass(frozen=True)
class Rejects:
    """The bad rows that were dropped."""

    rows: tuple[Reject, ...] = ()

    def __len__(self) -> int:
        return len(self.rows)

    def __add__(self, other: Rejects) -> Rejects:
        return Rejects(self.rows + other.rows)

    def table(self) -> pa.Table:
        """Return the rows as a table (file, row, column, reason, value)."""
        kinds = {name: pa.int64() if name == "row" else pa.string() for name in Reject._fields}
        return pa.table(
            {
                name: pa.array([getattr(r, name) for r in self.rows], kind)
                for name, kind in kinds.items()
            }
        )


class Sieve:
    """The rows of one file that are still good, and why the others are not."""

    def __init__(self, raw: RawFile) -> None:
        self.raw = raw
        self.keep = np.ones(len(raw.rows), dtype=bool)
        self.rejects = list(raw.rejects)
        self._columns: dict[str, pa.ChunkedArray | pa.Array] = {}

    def reject(self, bad: np.ndarray, column: str, reason: str) -> None:
        """Set aside the rows of ``bad`` (those still good) for ``reason``."""
        found = np.flatnonzero(bad & self.keep)
        if not found.size:  # and take() fails on columns of more than 2 GiB, whatever is asked for
            return
        values = self.raw.columns[column].take(pa.array(found)).to_pylist()
        for i, value in zip(found, values, strict=True):
            got = "nothing" if value is None else shown(value)
            self.rejects.append(Reject(self.raw.file, int(self.raw.rows[i]), column, reason, got))
        self.keep[found] = False

    def add(self, name: str, column: pa.ChunkedArray | np.ndarray) -> None:
        """Add a column of the result."""
        self._columns[name] = pa.array(column) if isinstance(column, np.ndarray) else column

    def table(self) -> pa.Table:
        """Return the good rows, with file and row number."""
        n = len(self.raw.rows)
        file = pa.DictionaryArray.from_arrays(np.zeros(n, dtype=np.int32), [self.raw.file])
        table = pa.table(self._columns | {"file": file, "row": pa.array(self.raw.rows)})
        return table.filter(pa.array(self.keep))


def gather(sieves: Iterable[Sieve]) -> tuple[pa.Table, list[Reject]]:
    """Return the good rows of all files, and the bad ones in order of file and row."""
    done = list(sieves)
    rejects = [reject for sieve in done for reject in sorted(sieve.rejects, key=lambda r: r.row)]
    tables = [sieve.table() for sieve in done if sieve.raw.there]
    return pa.concat_tables(tables or [pa.table({})], promote_options="permissive"), rejects


def settle(rejects: list[Reject], kept: int, where: str, bad_rows: str) -> None:
    """Raise ``InputError`` if there are bad rows and ``bad_rows="error"``, or if none is kept."""
    if not rejects and kept == 0:
        raise InputError(where, "no rows", fix="Give a file with at least one row of data.")
    if not rejects or (bad_rows == "drop" and kept):
        return
    first = rejects[0]
    column = f", column {first.column!r}" if first.column else ""
    count = "1 bad row" if len(rejects) == 1 else f"{len(rejects)} bad rows, this the first"
    fix = "Fix the rows or pass --bad-rows drop."
    if kept == 0:
        fix = "No good row is left: fix the rows, or the options that name the columns."
    raise InputError(
        first.file,
        f"row {first.row}{column}: {first.reason} ({count})",
        got=first.value or None,
        fix=fix,
    )
