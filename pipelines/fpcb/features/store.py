"""Features at rest: Parquet, a row a panel, with labels and ground truth beside them."""

import io
from collections.abc import Sequence
from typing import IO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from cluster.errors import InputError
from cluster.storage import Store
from pipelines.fpcb.features.extraction import Features
from pipelines.fpcb.features.table import names

LEVELS = ("frame", "panel", "map")


def column(level: str, name: str) -> str:
    """Return what feature ``name`` of ``level`` is called in the files."""
    return f"{level}_{name}"


def to_rows(features: Features, beside: pa.Table) -> pa.Table:
    """Return features as rows.

    A panel's feature is a number; a frame's a list over frames; a map's the values of its frames
    one after the other, each over places.
    """
    columns = {name: beside[name] for name in beside.column_names}
    n = features.number.size
    n_frames = np.full(n, features.frame.shape[1], dtype=np.int32)
    columns |= {"n_frames": pa.array(n_frames)}
    for k, name in enumerate(names("panel")):
        columns[column("panel", name)] = pa.array(features.panel[:, k])
    for k, name in enumerate(names("frame")):
        columns[column("frame", name)] = _lists(features.frame[:, :, k])
    for k, name in enumerate(names("map")):
        columns[column("map", name)] = _lists(features.maps[:, k].reshape(n, -1))
    return pa.table(columns)


class FeatureWriter:
    """Writes rows of features to one Parquet file, a row group a call."""

    def __init__(self, sink: IO[bytes]) -> None:
        self._sink = sink
        self._writer: pq.ParquetWriter | None = None

    def write(self, table: pa.Table) -> None:
        """Append ``table``."""
        if self._writer is None:
            texts = [f.name for f in table.schema if pa.types.is_string(f.type)]
            self._writer = pq.ParquetWriter(
                self._sink,
                table.schema,
                compression="zstd",
                compression_level=1,
                use_dictionary=texts,
                write_statistics=["number"],
                write_page_checksum=True,
            )
        self._writer.write_table(table, row_group_size=len(table))

    def close(self) -> None:
        """Finish the file."""
        if self._writer is not None:
            self._writer.close()


def read_rows(store: Store, name: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Return one file's rows, of ``columns`` alone when given.

    Raises
    ------
    InputError
        When the file is missing, torn, or of another version of the features.
    """
    fix = "Run `tenfold fpcb features` again with --recompute."
    try:
        return pq.read_table(
            io.BytesIO(store.read_bytes(name)),
            columns=columns and [*columns],
            use_threads=False,
            partitioning=None,
            page_checksum_verification=True,
        )
    except (pa.ArrowException, OSError) as error:
        got = str(error).splitlines()[0]
        raise InputError(f"{store}/{name}", "cannot be read", got=got, fix=fix) from error


def frame_array(table: pa.Table, wanted: Sequence[str]) -> npt.NDArray[np.float32]:
    """Return frame features (n, n_frames, k) of rows that have one number of frames."""
    return np.stack([_matrix(table[column("frame", name)]) for name in wanted], axis=2)


def map_array(table: pa.Table, wanted: Sequence[str]) -> npt.NDArray[np.float16]:
    """Return maps (n, channels, n_frames, places) of rows that have one number of frames."""
    n_frames = table["n_frames"][0].as_py()
    flat = [_matrix(table[column("map", name)]) for name in wanted]
    return np.stack([part.reshape(len(part), n_frames, -1) for part in flat], axis=1)


def _lists(values: npt.NDArray[np.floating]) -> pa.ListArray:
    ends = np.arange(len(values) + 1, dtype=np.int32) * values.shape[1]
    return pa.ListArray.from_arrays(pa.array(ends), pa.array(np.ascontiguousarray(values).ravel()))


def _matrix(lists: pa.ChunkedArray) -> npt.NDArray[np.floating]:
    whole = lists.combine_chunks()
    return np.asarray(whole.flatten().to_numpy(zero_copy_only=False)).reshape(len(lists), -1)
