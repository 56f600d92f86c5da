"""Find input files and read them raw: Parquet, CSV and JSON lines, local or on S3.

Rows that cannot be read (torn, wrong number of fields, malformed JSON) are set aside with their
row number; a file that cannot be read at all raises ``InputError``.
"""

from __future__ import annotations

import csv
import fnmatch
import glob
import io
import json
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from cluster.errors import InputError
from cluster.storage import refuse_credentials

_PARQUET = (".parquet", ".pq")
_CSV = (".csv", ".tsv", ".csv.gz", ".tsv.gz")
_JSON = (".json", ".jsonl", ".ndjson", ".json.gz", ".jsonl.gz", ".ndjson.gz")
_SUFFIXES = _PARQUET + _CSV + _JSON
_BLOCK_ROWS = 65_536
_SHOWN_CHARACTERS = 80
_SERVER = re.compile(r"\?\w+=[^*\[]*$")  # ?endpoint_override=…: no part of a glob


class Reject(NamedTuple):
    """One bad row: where it is, and what is wrong with it."""

    file: str
    row: int
    """1-based: the data row (CSV, its header not counted; Parquet) or the line (JSON lines)."""
    column: str
    reason: str
    value: str


@dataclass(frozen=True)
class RawFile:
    """One file's columns as they came: ``rows[i]`` is the row number of entry ``i``."""

    file: str
    columns: dict[str, pa.ChunkedArray]
    there: tuple[str, ...]
    rows: np.ndarray
    rejects: tuple[Reject, ...] = ()


def shown(value: object) -> str:
    """Return ``value`` as one short line for a message."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "backslashreplace")
    text = str(value).rstrip()
    text = text if text.isprintable() else repr(text)[1:-1]
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"


def find_files(spec: str) -> list[str]:
    """Return the files ``spec`` stands for (a file, a folder or a glob), sorted.

    Raises
    ------
    InputError
        When there is no such file, or the folder or glob holds no file of a known format.
    """
    if not spec.strip():  # a shell variable that is not set: not the folder we happen to be in
        raise InputError("--news, --prices", "an empty path", fix="Name a file, folder or glob.")
    refuse_credentials(spec)
    if "://" in spec:
        files, is_file = _find_remote(spec)
    elif Path(spec).is_dir():
        files, is_file = [p.as_posix() for p in Path(spec).rglob("*") if p.is_file()], False
    elif Path(spec).exists() or not glob.has_magic(spec):
        files, is_file = [spec] if Path(spec).exists() else [], True
    else:
        files, is_file = glob.glob(spec, recursive=True), False  # noqa: PTH207 (absolute globs)
    if not files:
        what = "no such file or folder" if is_file else "no file matches"
        raise InputError(spec, what, fix="Check the path; quote a glob so the shell leaves it be.")
    known = sorted(f for f in files if _name(f).endswith(_SUFFIXES) and not _hidden(f, spec))
    if not known:
        suffixes = "a name ending in " + ", ".join(_SUFFIXES)
        raise InputError(spec, "format unknown", suffixes, fix="Convert or rename the file.")
    return known


def read_file(file: str, wanted: Collection[str] | None = None) -> RawFile:
    """Read one file; ``wanted`` limits the columns (those absent are simply not returned).

    Raises
    ------
    InputError
        When the file cannot be read at all, or names a column twice.
    """
    name = _name(file)
    read = _read_parquet if name.endswith(_PARQUET) else _read_json
    if name.endswith(_CSV):
        read = _read_csv
    try:
        return read(file, wanted)
    except (pa.ArrowException, csv.Error, OSError, EOFError) as error:
        kind = type(error).__name__
        raise InputError(
            file,
            f"cannot be read ({kind}: {shown(error)})",
            fix="It may be truncated or of another format than its name says: make it again.",
        ) from error


def file_blocks(file: str) -> Iterator[bytes]:
    """Yield the bytes of ``file`` as stored, for hashing."""
    filesystem, path = _locate(file)
    with filesystem.open_input_stream(path, compression=None) as stream:
        while block := stream.read(1 << 22):
            yield block


def _locate(file: str) -> tuple[fs.FileSystem, str]:
    if "://" in file:
        return fs.FileSystem.from_uri(file)
    return fs.LocalFileSystem(), str(Path(file).absolute())


def _name(file: str) -> str:
    """Return the file's own name in lower case, without the server's part of an address."""
    bare = _SERVER.sub("", file) if "://" in file else file
    return bare.rsplit("/", 1)[-1].lower()


def _hidden(file: str, spec: str) -> bool:
    # Spark and editors leave _SUCCESS, ._news.csv and the like beside the data.
    return file != spec and _name(file).startswith((".", "_"))


def _find_remote(spec: str) -> tuple[list[str], bool]:
    server = found[0] if (found := _SERVER.search(spec)) else ""
    scheme, _, rest = spec.removesuffix(server).partition("://")
    fixed = rest.split("*")[0].split("?")[0].split("[")[0]
    base = fixed if fixed == rest else fixed.rsplit("/", 1)[0]
    try:
        filesystem, path = fs.FileSystem.from_uri(f"{scheme}://{base}{server}")
        info = filesystem.get_file_info(path)
        if info.type == fs.FileType.File:
            return [spec], True
        below = filesystem.get_file_info(
            fs.FileSelector(path, recursive=True, allow_not_found=True)
        )
    except (pa.ArrowException, OSError) as error:
        raise InputError(
            spec, f"cannot be listed ({shown(error)})", fix="Check the address and credentials."
        ) from error
    root = path.rstrip("/")
    files = [f"{scheme}://{base.rstrip('/')}{i.path[len(root) :]}" for i in below if i.is_file]
    if fixed != rest:
        files = fnmatch.filter(files, f"{scheme}://{rest}")
    return [f"{file}{server}" for file in files], fixed == rest


def _unique(file: str, names: Sequence[str]) -> tuple[str, ...]:
    twice = sorted({name for name in names if list(names).count(name) > 1})
    if twice:
        raise InputError(file, f"column {twice[0]!r}", "one of that name", "several", "Rename one.")
    return tuple(names)


def _read_parquet(file: str, wanted: Collection[str] | None) -> RawFile:
    filesystem, path = _locate(file)
    with filesystem.open_input_file(path) as stream:
        parquet = pq.ParquetFile(stream)
        there = _unique(file, parquet.schema_arrow.names)
        table = parquet.read([name for name in there if wanted is None or name in wanted])
        rows = parquet.metadata.num_rows
    columns = {name: table.column(name) for name in table.column_names}
    return RawFile(file, columns, there, np.arange(1, rows + 1))


def _read_csv(file: str, wanted: Collection[str] | None) -> RawFile:
    csv.field_size_limit(2**31 - 1)  # a long text is no error
    with _open_text(file) as stream:
        reader = csv.reader(stream, strict=True, delimiter=_delimiter(file))
        there = _unique(file, next(reader, []))
        pick = [i for i, name in enumerate(there) if wanted is None or name in wanted]
        chunks: list[list[pa.Array]] = [[] for _ in pick]
        block: list[list[str]] = []
        rows: list[int] = []
        rejects: list[Reject] = []
        for row, record in enumerate(_csv_records(reader), start=1):
            if isinstance(record, csv.Error):
                rejects.append(Reject(file, row, "", f"broken CSV ({record})", ""))
            elif len(record) != len(there):
                reason = f"expected {len(there)} fields, got {len(record)}"
                rejects.append(Reject(file, row, "", reason, shown(",".join(record))))
            else:
                rows.append(row)
                block.append(record)
            if len(block) == _BLOCK_ROWS:
                _flush(block, pick, chunks)
        _flush(block, pick, chunks)
    columns = {
        there[i]: pa.chunked_array(parts, pa.binary())
        for i, parts in zip(pick, chunks, strict=True)
    }
    return RawFile(file, columns, there, np.array(rows, dtype=np.int64), tuple(rejects))


def _delimiter(file: str) -> str:
    return "\t" if _name(file).endswith((".tsv", ".tsv.gz")) else ","


def _csv_records(reader: Iterator[list[str]]) -> Iterator[list[str] | csv.Error]:
    while True:
        try:
            record = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield error
            continue
        if record:  # not a blank line
            yield record


def _flush(block: list[list[str]], pick: list[int], chunks: list[list[pa.Array]]) -> None:
    """Move a block's rows into Arrow: a big file is never held as Python strings."""
    for i, parts in zip(pick, chunks, strict=True):
        parts.append(_binary([record[i] for record in block]))
    block.clear()


def _read_json(file: str, wanted: Collection[str] | None) -> RawFile:
    values: dict[str, list[Any]] = {}
    rows: list[int] = []
    rejects: list[Reject] = []
    with _open_text(file) as stream:
        for row, line in enumerate(stream, start=1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as error:
                rejects.append(Reject(file, row, "", f"malformed JSON ({error})", shown(line)))
                continue
            if not isinstance(record, dict):
                rejects.append(Reject(file, row, "", "not one JSON object a line", shown(line)))
                continue
            for name in record:
                if name not in values:
                    values[name] = [None] * len(rows)
            rows.append(row)
            for name, column in values.items():
                keep = wanted is None or name in wanted
                column.append(record.get(name) if keep else None)
    columns = {
        name: pa.chunked_array([_typed(column)])
        for name, column in values.items()
        if wanted is None or name in wanted
    }
    return RawFile(file, columns, tuple(values), np.array(rows, dtype=np.int64), tuple(rejects))


def _typed(values: Sequence[Any]) -> pa.Array:
    try:
        return pa.array(values)
    except (ValueError, TypeError, OverflowError):  # mixed types, broken text: leave as written
        return _binary([v if v is None or isinstance(v, str) else json.dumps(v) for v in values])


def _binary(values: Sequence[str | None]) -> pa.Array:
    return pa.array([None if v is None else _encoded(v) for v in values], pa.binary())


def _encoded(text: str) -> bytes:
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # half a surrogate pair, escaped in JSON
        return text.encode("utf-8", "surrogatepass")


def _open_text(file: str) -> io.TextIOWrapper:
    filesystem, path = _locate(file)
    stream = filesystem.open_input_stream(path)  # decompresses by suffix
    # Broken bytes survive as surrogates, so that the row that holds them can be named.
    return io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")
