"""Panels in the feature cache, row group by row group: the maps or frame features of some.

What is read is checked: NaN is refused, and other numbers of frames are resampled.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from cluster.errors import InputError
from cluster.storage import Store
from pipelines.fpcb.dataset import FEATURES, DataSet
from pipelines.fpcb.features.store import frame_array, map_array
from pipelines.fpcb.features.table import FEATURE_VERSION

_OPEN_FILES = 32
_STRETCH = 2.0  # how far another number of frames may be from the model's


class Reader(Protocol):
    """What is read of a panel, and as what."""

    @property
    def columns(self) -> list[str]:
        """Columns of the files."""

    def read(self, table: pa.Table, where: str) -> npt.NDArray[Any]:
        """Return items (n_items, …) of the rows of ``table``."""


@dataclass(frozen=True)
class MapReader:
    """Reads maps (n, channels, n_frames, places), float16."""

    names: tuple[str, ...]
    n_frames: int

    @property
    def columns(self) -> list[str]:
        """Columns of the files."""
        return ["number", "n_frames", *(f"map_{name}" for name in self.names)]

    def read(self, table: pa.Table, where: str) -> npt.NDArray[Any]:
        """Return the maps, resampled in time where a panel has another number of frames."""
        parts = [
            (rows, to_frames(map_array(part, self.names), 2, self.n_frames, where))
            for rows, part in _by_length(table)
        ]
        return _checked(_joined(parts), table, where, "map")


@dataclass(frozen=True)
class FrameReader:
    """Reads features of frames; an item is a frame (n × n_frames, columns), or a panel's frames.

    Attributes
    ----------
    names : tuple of str
    n_frames : int
    flat : bool
        Whether items are frames.
    """

    names: tuple[str, ...]
    n_frames: int
    flat: bool = True

    @property
    def columns(self) -> list[str]:
        """Columns of the files."""
        return ["number", "n_frames", *(f"frame_{name}" for name in self.names)]

    def read(self, table: pa.Table, where: str) -> npt.NDArray[Any]:
        """Return the frames' features, float32, in the order of panels and frames."""
        parts = [
            (rows, to_frames(frame_array(part, self.names), 1, self.n_frames, where))
            for rows, part in _by_length(table)
        ]
        values = _checked(_joined(parts), table, where, "frame")
        return values.reshape(-1, values.shape[-1]) if self.flat else values


def to_frames(values: npt.NDArray[Any], axis: int, n_frames: int, where: str) -> npt.NDArray[Any]:
    """Interpolate linearly along time to ``n_frames`` frames.

    Raises
    ------
    InputError
        When the number of frames is off by more than a factor of 2.
    """
    own = values.shape[axis]
    if own == n_frames:
        return values
    if not n_frames / _STRETCH <= own <= n_frames * _STRETCH:
        raise InputError(
            where,
            "frames of a panel",
            f"{n_frames / _STRETCH:g} to {n_frames * _STRETCH:g}",
            own,
            "Film such panels apart, and train a model on them alone.",
        )
    at = np.linspace(0, own - 1, n_frames)
    before = np.minimum(at.astype(int), own - 2)
    share = (at - before).astype(np.float32).reshape((-1,) + (1,) * (values.ndim - axis - 1))
    low, high = (np.take(values, k, axis).astype(np.float32) for k in (before, before + 1))
    mixed: npt.NDArray[Any] = (low + (high - low) * share).astype(values.dtype)
    return mixed


@dataclass(frozen=True)
class Piece:
    """Some rows of one row group."""

    file: str
    group: int
    rows: tuple[int, ...]


@dataclass(frozen=True)
class Panels:
    """The good panels of a split.

    Attributes
    ----------
    store : Store
    pieces : tuple of Piece
        A row group each.
    n_frames : int
        What most of them have.
    """

    store: Store
    pieces: tuple[Piece, ...]
    n_frames: int

    @property
    def size(self) -> int:
        """Number of panels."""
        return sum(len(piece.rows) for piece in self.pieces)

    def first(self, count: int) -> "Panels":
        """Return about ``count`` panels, the same share of every row group."""
        share = min(1.0, count / max(self.size, 1))
        kept = [
            Piece(p.file, p.group, p.rows[: max(1, round(share * len(p.rows)))])
            for p in self.pieces
        ]
        return Panels(self.store, tuple(kept), self.n_frames)


def good_panels(data: DataSet, split: str) -> Panels:
    """Find the panels labelled good of a split; only three small columns are read.

    Raises
    ------
    InputError
        When there are none, or the features are of another version.
    """
    check_version(data)
    pieces, lengths = [], []
    for name in data.files(FEATURES):
        if not name.startswith(f"{FEATURES}/split={split}/"):
            continue
        file = open_features(data.store, name)
        for group in range(file.num_row_groups):
            table = file.read_row_group(group, columns=["label", "n_frames"], use_threads=False)
            label = table["label"].to_numpy()
            rows = np.flatnonzero(label == 0)
            if rows.size:
                pieces.append(Piece(name, group, tuple(rows.tolist())))
                lengths.append(table["n_frames"].to_numpy()[rows])
    if not pieces:
        raise InputError(
            str(data.store),
            "no good panels",
            f"panels with label 0 in split {split!r}",
            "none",
            "Label panels as good (0), name their splits or import them with --assign-splits.",
        )
    values, counts = np.unique(np.concatenate(lengths), return_counts=True)
    return Panels(data.store, tuple(pieces), int(values[counts.argmax()]))


def check_version(data: DataSet) -> None:
    """Raise InputError unless the data's features are those of this code."""
    version = data.about.get("feature_version")
    if version != FEATURE_VERSION:
        raise InputError(
            str(data.store),
            "version of the features",
            FEATURE_VERSION,
            version,
            "Run `tenfold fpcb features` again.",
        )


def read_piece(store: Store, piece: Piece, reader: Reader) -> npt.NDArray[Any]:
    """Return the items of one piece."""
    columns = reader.columns
    table = open_features(store, piece.file).read_row_group(
        piece.group, columns=columns, use_threads=False
    )
    if len(piece.rows) < len(table):
        table = table.take(pa.array(piece.rows))
    return reader.read(table, f"{store}/{piece.file}")


class FeatureFile(pq.ParquetFile):  # type: ignore[misc]  # pyarrow has no types
    """One file of features; what it cannot read, a flipped bit among it, is an InputError."""

    def __init__(self, store: Store, name: str) -> None:
        self.where = f"{store}/{name}"
        with _readable(self.where):
            source = store.filesystem.open_input_file(f"{store.path}/{name}")
            super().__init__(source, page_checksum_verification=True)

    def read_row_group(self, *which: Any, **how: Any) -> pa.Table:
        """Return the rows of one group."""
        with _readable(self.where):
            return super().read_row_group(*which, **how)

    def read(self, *which: Any, **how: Any) -> pa.Table:
        """Return all rows."""
        with _readable(self.where):
            return super().read(*which, **how)


def open_features(store: Store, name: str) -> FeatureFile:
    """Open one file of features.

    Raises
    ------
    InputError
        When it is missing or torn.
    """
    (info,) = store.filesystem.get_file_info([f"{store.path}/{name}"])
    return _opened(store, name, info.mtime_ns, info.size)  # a file made again is another


@lru_cache(maxsize=_OPEN_FILES)
def _opened(store: Store, name: str, _mtime_ns: int | None, _size: int) -> FeatureFile:
    return FeatureFile(store, name)


@contextmanager
def _readable(where: str) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        fix = "Run the command that made it again: damaged files are made anew."
        got = str(error).splitlines()[0]
        raise InputError(where, "cannot be read", got=got, fix=fix) from error


def _by_length(table: pa.Table) -> list[tuple[npt.NDArray[np.intp], pa.Table]]:
    lengths = table["n_frames"].to_numpy()
    values = np.unique(lengths)
    if values.size == 1:
        return [(np.arange(len(table)), table)]
    rows = [np.flatnonzero(lengths == value) for value in values]
    return [(own, table.take(pa.array(own))) for own in rows]


def _joined(parts: list[tuple[npt.NDArray[np.intp], npt.NDArray[Any]]]) -> npt.NDArray[Any]:
    if len(parts) == 1:
        return parts[0][1]
    order = np.argsort(np.concatenate([rows for rows, _ in parts]))
    joined: npt.NDArray[Any] = np.concatenate([values for _, values in parts])[order]
    return joined


def _checked(values: npt.NDArray[Any], table: pa.Table, where: str, what: str) -> npt.NDArray[Any]:
    if not np.isfinite(values).all():
        bad = np.flatnonzero(~np.isfinite(values).reshape(len(values), -1).all(axis=1))[0]
        raise InputError(
            where,
            f"{what} features of panel {table['number'][int(bad)].as_py()}",
            "finite numbers",
            "NaN or infinity",
            "Remove the panel, or run `tenfold fpcb features` again with --recompute.",
        )
    return values
