"""Panels at rest: Parquet, a row a panel, its points beside what is known of it.

The points are plain pixels. Neighbours along the board differ by a pixel or two, which Parquet's
own delta encoding stores in a few bits: about 9 KB a panel of 60 frames and 230 points.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cluster.errors import InputError
from cluster.storage import Store
from pipelines.fpcb.panels import PanelBatch

# x of frame 0 along the board, x of frame 1, …, then y: (2, n_frames, n_points) in C order.
POINTS = pa.large_list(pa.field("element", pa.int16(), nullable=False))
PANEL_FIELDS = pa.schema(
    [
        pa.field("number", pa.int64(), nullable=False),
        pa.field("name", pa.string()),
        pa.field("n_points", pa.int32(), nullable=False),
        pa.field("n_frames", pa.int32(), nullable=False),
        pa.field("fps", pa.float64(), nullable=False),
        pa.field("metres_per_pixel", pa.float64()),
        pa.field("points", POINTS, nullable=False),
    ]
)
_OF_BATCH = ("n_points", "n_frames", "fps", "metres_per_pixel", "points")
_ROW_GROUP_PANELS = 500  # some 30 MB of points
_MAKE_AGAIN = "Make the file again."


def panel_table(
    number: npt.ArrayLike,
    points: Sequence[npt.NDArray[np.int16]],
    fps: npt.ArrayLike,
    metres_per_pixel: npt.ArrayLike,
    beside: pa.Table,
) -> pa.Table:
    """Return panels as rows.

    Parameters
    ----------
    number : array (n,), int64
    points : sequence of n arrays (2, n_frames, n_points), int16, px
        Numbers of frames and of points may differ from panel to panel.
    fps : array (n,), 1/s
    metres_per_pixel : array (n,); NaN where it is not known
    beside : Table of n rows
        ``name``, labels and ground truth; a ``number`` column must be the same numbers.
    """
    shapes = np.array([panel.shape[1:] for panel in points], dtype=np.int32).reshape(-1, 2)
    ends = np.cumsum([0, *(panel.size for panel in points)])
    flat = np.empty(ends[-1], dtype=np.int16)
    for panel, start, end in zip(points, ends, ends[1:], strict=False):
        flat[start:end].reshape(panel.shape)[:] = panel
    metres = np.asarray(metres_per_pixel, dtype=np.float64)
    number = np.asarray(number, dtype=np.int64)
    names = beside["name"] if "name" in beside.column_names else pa.nulls(len(points), pa.string())
    if "number" in beside.column_names and (beside["number"].to_numpy() != number).any():
        raise ValueError("the table beside the panels is of other panels, or in another order")
    columns = {
        "number": pa.array(number),
        "name": names,
        "n_points": pa.array(shapes[:, 1]),
        "n_frames": pa.array(shapes[:, 0]),
        "fps": pa.array(np.asarray(fps, dtype=np.float64)),
        "metres_per_pixel": pa.array(metres, mask=np.isnan(metres)),
        "points": pa.LargeListArray.from_arrays(pa.array(ends), pa.array(flat), type=POINTS),
    }
    others = [name for name in beside.column_names if name not in columns]
    fields = [*PANEL_FIELDS][:2] + [beside.schema.field(name) for name in others]
    schema = pa.schema([*fields, *[*PANEL_FIELDS][2:]])
    columns |= {name: beside[name] for name in others}
    return pa.table([columns[name] for name in schema.names], schema=schema)


def to_table(batch: PanelBatch, beside: pa.Table | None = None) -> pa.Table:
    """Return a batch as rows, with the rows of ``beside`` (labels, ground truth) in their places.

    Returns
    -------
    Table
        ``number``, ``name``, the columns of ``beside``, then the rest of ``PANEL_FIELDS``.
    """
    beside = pa.table({"number": batch.number}) if beside is None else beside
    points = [panel[:, :, :n] for panel, n in zip(batch.points, batch.n_points, strict=True)]
    return panel_table(batch.number, points, batch.fps, batch.metres_per_pixel, beside)


def to_batches(table: pa.Table, where: str = "panels") -> Iterator[tuple[PanelBatch, pa.Table]]:
    """Yield the panels of each number of frames, rising, in the order of their rows.

    Parameters
    ----------
    table : Table
        With at least the columns of ``PANEL_FIELDS`` but ``name``.
    where : str
        The file, for messages.

    Yields
    ------
    PanelBatch
    Table
        Of the same panels: ``number``, ``name``, labels and ground truth.

    Raises
    ------
    InputError
        When a column is missing or of another type, or a row's points are not those of
        ``n_frames`` frames of ``n_points``; names the row, counted from 1.
    """
    table = _checked(table, where)
    n_frames, n_points = (table[name].to_numpy() for name in ("n_frames", "n_points"))
    beside = table.drop_columns([*_OF_BATCH])
    lists = table["points"].combine_chunks()
    flat, starts = lists.values.to_numpy(), lists.offsets.to_numpy()
    fps, metres = table["fps"].to_numpy(), table["metres_per_pixel"].to_numpy()
    for frames in np.unique(n_frames):
        rows = np.flatnonzero(n_frames == frames)
        points = np.zeros((rows.size, 2, frames, n_points[rows].max()), dtype=np.int16)
        for panel, row in zip(points, rows, strict=True):
            values = flat[starts[row] : starts[row + 1]]
            panel[:, :, : n_points[row]] = values.reshape(2, frames, -1)
        yield (
            PanelBatch(
                table["number"].to_numpy()[rows], points, n_points[rows], fps[rows], metres[rows]
            ),
            beside.take(pa.array(rows)),
        )


def write_panels(store: Store, name: str, table: pa.Table) -> None:
    """Write rows of panels as one Parquet file."""
    texts = [field.name for field in table.schema if pa.types.is_string(field.type)]
    with store.open_output(name) as sink:
        pq.write_table(
            table,
            sink,
            row_group_size=_ROW_GROUP_PANELS,
            compression="zstd",
            compression_level=3,
            use_dictionary=texts,
            column_encoding={"points.list.element": "DELTA_BINARY_PACKED"},
            write_page_checksum=True,
            write_statistics=[column for column in table.column_names if column != "points"],
        )


def read_panels(store: Store, name: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Return the rows of one Parquet file, of ``columns`` alone when given.

    Raises
    ------
    InputError
        When the file is missing, torn, or no Parquet, or lacks a column.
    """
    where = f"{store}/{name}"
    try:
        data = io.BytesIO(store.read_bytes(name))
        file = pq.ParquetFile(data, page_checksum_verification=True)
        for column in columns or ():
            _require(column, file.schema_arrow.names, where)
        # One thread: the shards are what runs side by side.
        return file.read(columns=columns and [*columns], use_threads=False)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        got = str(error).splitlines()[0]
        raise InputError(where, "cannot be read as Parquet", got=got, fix=_MAKE_AGAIN) from error


def _require(column: str, there: Sequence[str], where: str) -> None:
    if column not in there:
        got = f"columns {', '.join(there[:20])}"
        raise InputError(where, f"no column {column!r}", got=got, fix=_MAKE_AGAIN)


def _checked(table: pa.Table, where: str) -> pa.Table:
    """Return the table with the columns and types of ``PANEL_FIELDS``, each row sound."""
    for field in PANEL_FIELDS:
        if field.name == "name" and "name" not in table.column_names:
            table = table.append_column(field, pa.nulls(table.num_rows, pa.string()))
        _require(field.name, table.column_names, where)
        column = _cast(table[field.name], field, where)
        table = table.set_column(table.column_names.index(field.name), field, column)
    number, n_frames, n_points, fps = (
        table[name].to_numpy() for name in ("number", "n_frames", "n_points", "fps")
    )
    metres = table["metres_per_pixel"].to_numpy()
    sizes = pc.list_value_length(table["points"]).to_numpy()
    again = np.ones(number.size, dtype=bool)
    again[np.unique(number, return_index=True)[1]] = False
    values = 2 * n_frames.astype(np.int64) * n_points
    _refuse(again, where, "number", "each number once", number)
    _refuse(n_frames < 1, where, "n_frames", "1 or more", n_frames)
    _refuse(n_points < 1, where, "n_points", "1 or more", n_points)
    _refuse(~((fps > 0) & np.isfinite(fps)), where, "fps", "a positive number", fps)
    unsound = ~((metres > 0) & np.isfinite(metres)) & ~np.isnan(metres)
    _refuse(unsound, where, "metres_per_pixel", "a positive number, or null", metres)
    _refuse(sizes != values, where, "points", "2 · n_frames · n_points values", sizes)
    return table


def _cast(column: pa.ChunkedArray, field: pa.Field, where: str) -> pa.ChunkedArray:
    if not field.nullable:
        _refuse(column.is_null().to_numpy(), where, field.name, "a value", None)
    try:
        if field.name == "points":
            inner = pc.list_flatten(column)
            if inner.null_count:
                row = pc.list_parent_indices(column).filter(inner.is_null())[0].as_py() + 1
                raise InputError(where, f"row {row}, column 'points'", "integers", "null")
        return column.cast(field.type)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
        what, got = f"column {field.name!r}", str(error).splitlines()[0]
        for row in range(len(column)):
            try:
                column.take(pa.array([row])).cast(field.type)  # of a slice, all of a list is cast
            except pa.ArrowException:
                what = f"row {row + 1}, {what}"
                break
        raise InputError(where, what, field.type, got, _MAKE_AGAIN) from error


def _refuse(
    bad: npt.NDArray[np.bool_],
    where: str,
    column: str,
    expected: str,
    values: npt.NDArray | None,
) -> None:
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        got = "null" if values is None else values[row]
        raise InputError(where, f"row {row + 1}, column {column!r}", expected, got, _MAKE_AGAIN)
