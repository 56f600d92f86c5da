"""Run folders on a local path, NFS or S3, through ``pyarrow.fs``: writes are all or nothing."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import posixpath
import re
import secrets
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import IO, Any
from zipfile import BadZipFile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from cluster.errors import InputError

_TEMPORARY = ".partial-"
_BLOCK_BYTES = 1 << 22
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_CREDENTIALS = re.compile(r"^\w+://[^/@?]*@")


class Store:
    """A folder that outputs are written to and read from by name.

    Parameters
    ----------
    uri : str or Path
        A local path, ``file:///…``, or ``s3://bucket/folder`` (credentials as usual from the
        environment; ``?endpoint_override=…&scheme=http`` for servers other than AWS).

    Notes
    -----
    Local files are written under a temporary name and renamed. What goes to S3 is written to a
    temporary file here, and uploaded when it is whole; an object appears when its upload is
    complete. A reader, or a process started after a crash, sees a whole file or none.

    Raises
    ------
    InputError
        When the address holds credentials.
    """

    def __init__(self, uri: str | Path) -> None:
        text = str(uri)
        refuse_credentials(text)
        if "://" not in text:
            text = Path(text).expanduser().absolute().as_posix()
        base, self._mark, self._query = text.partition("?") if "://" in text else (text, "", "")
        self._base = base.rstrip("/") or base

    @property
    def uri(self) -> str:
        """The address, as it can be given to ``Store`` again in any process."""
        return f"{self._base}{self._mark}{self._query}"

    @property
    def filesystem(self) -> fs.FileSystem:
        """The ``pyarrow`` file system behind this store."""
        return self._opened[0]

    @property
    def path(self) -> str:
        """The folder's path inside ``filesystem``."""
        return self._opened[1]

    @property
    def is_local(self) -> bool:
        """Whether this is a path on this machine's file systems (NFS among them)."""
        return isinstance(self.filesystem, fs.LocalFileSystem)

    @cached_property
    def _opened(self) -> tuple[fs.FileSystem, str]:
        if "://" not in self._base:
            return fs.LocalFileSystem(), self._base
        try:
            return fs.FileSystem.from_uri(self._address)
        except (pa.ArrowInvalid, OSError) as error:
            raise InputError(
                str(self),
                "storage address",
                "a local path or s3://bucket/folder",
                str(error).splitlines()[0],
                "Correct the address.",
            ) from error

    @property
    def _address(self) -> str:
        if not self._base.startswith("s3://"):
            return self.uri
        mark = "&" if self._mark else "?"
        return f"{self.uri}{mark}allow_delayed_open=true"  # a small object takes one request

    def __truediv__(self, name: str) -> Store:
        return Store(f"{self._base}/{name.strip('/')}{self._mark}{self._query}")

    def __repr__(self) -> str:
        return f"Store({str(self)!r})"

    def __str__(self) -> str:
        return self.uri

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Store) and other.uri == self.uri

    def __hash__(self) -> int:
        return hash(self.uri)

    # File systems are reopened where the store lands: a client of this process is of no use there.
    def __reduce__(self) -> tuple[type[Store], tuple[str]]:
        return Store, (self.uri,)

    def is_within(self, other: Store) -> bool:
        """Tell whether this folder is ``other``, or below it."""
        return self._query == other._query and f"{self._base}/".startswith(f"{other._base}/")

    def _at(self, name: str) -> str:
        if name.startswith("/") or ".." in name.split("/"):  # a name read from a file of others
            raise InputError(f"{self}/{name}", "a name that leads out of its folder")
        return posixpath.join(self.path, name)

    def exists(self, name: str = "") -> bool:
        """Tell whether ``name`` is there (the folder itself when empty)."""
        return (
            self.filesystem.get_file_info(self._at(name).rstrip("/")).type != fs.FileType.NotFound
        )

    def size(self, name: str) -> int | None:
        """Return the size of ``name`` in bytes, or None when it is no file here."""
        return self.sizes([name])[0]

    def sizes(self, names: Sequence[str]) -> Sequence[int | None]:
        """Return the size of each of ``names`` in bytes, None for what is no file here."""
        infos = self.filesystem.get_file_info([self._at(name) for name in names])
        return [info.size if info.type == fs.FileType.File else None for info in infos]

    def modified_s(self, name: str) -> float | None:
        """Return when ``name`` was written, in seconds, by the store's own clock; None if never."""
        info = self.filesystem.get_file_info(self._at(name))
        return None if info.mtime_ns is None else info.mtime_ns / 1e9

    def list(self, prefix: str = "") -> list[str]:
        """Return the sorted names of the files whose name starts with ``prefix``.

        Some stores list new files late: nothing that must be right may depend on this.
        """
        folder = posixpath.dirname(prefix)
        selector = fs.FileSelector(
            self._at(folder).rstrip("/"), allow_not_found=True, recursive=True
        )
        start = len(self.path.rstrip("/")) + 1
        names = [
            info.path[start:]
            for info in self.filesystem.get_file_info(selector)
            if info.type == fs.FileType.File and _TEMPORARY not in info.base_name
        ]
        return sorted(name for name in names if name.startswith(prefix))

    def delete(self, name: str) -> None:
        """Remove ``name``; nothing happens when it is not there."""
        with suppress(FileNotFoundError):
            self.filesystem.delete_file(self._at(name))

    def sweep(self) -> None:
        """Remove what processes that died or stall while writing left.

        One that writes all the same will fail: there must be none whose file is still wanted.
        """
        if self.is_local:
            for left in Path(self.path).rglob(f"{_TEMPORARY}*"):
                left.unlink(missing_ok=True)

    def sweep_top(self) -> None:
        """Do so in the folder itself alone, and spare probes: hidden files of who only asks."""
        if self.is_local:
            for left in Path(self.path).glob(f"{_TEMPORARY}????????-[!.]*"):
                left.unlink(missing_ok=True)

    def check_writable(self) -> None:
        """Write and remove a small file.

        Raises
        ------
        InputError
            When that fails: no permission, a read-only or full disk, a file in the way.
        """
        name = f"{_TEMPORARY}writable-{secrets.token_hex(4)}"
        try:
            self.write_bytes(name, b"tenfold")
            self.delete(name)
        except (OSError, pa.ArrowException) as error:
            raise InputError(
                str(self),
                "output folder",
                "a folder that can be written to",
                str(error).splitlines()[0],
                "Change its permissions or name another folder.",
            ) from error

    @contextmanager
    def open_output(self, name: str) -> Iterator[IO[bytes]]:
        """Open a binary file that appears as ``name`` when the block ends without an error."""
        if not self.is_local:
            # Closing a stream of pyarrow completes the upload, also after an error (arrow#40502):
            # so none is opened before all is written.
            with tempfile.NamedTemporaryFile(prefix="tenfold-") as spool:
                with space_needed(tempfile.gettempdir()):
                    yield spool.file
                    spool.flush()
                here = fs.LocalFileSystem()
                fs.copy_files(spool.name, self._at(name), here, self.filesystem)
            return
        final = Path(self._at(name))
        with space_needed(str(self)):
            final.parent.mkdir(parents=True, exist_ok=True)
        # Another process may write the same name at this moment: each has its own temporary.
        partial = final.with_name(f"{_TEMPORARY}{secrets.token_hex(4)}-{final.name}")
        try:
            with space_needed(str(self)):
                with partial.open("xb") as sink:
                    yield sink
                    sink.flush()
                    os.fsync(sink.fileno())
                partial.replace(final)
        finally:
            partial.unlink(missing_ok=True)

    def read_bytes(self, name: str) -> bytes:
        """Return the content of ``name``; FileNotFoundError when it is not there."""
        with self.filesystem.open_input_stream(self._at(name)) as source:
            return source.read()

    def write_bytes(self, name: str, data: bytes) -> None:
        """Write ``data`` as ``name``."""
        with self.open_output(name) as sink:
            sink.write(data)

    def read_json(self, name: str) -> Any:
        """Return the object that ``write_json`` wrote as ``name``."""
        return json.loads(self.read_bytes(name))

    def write_json(self, name: str, value: Any) -> None:
        """Write ``value`` as indented JSON."""
        self.write_bytes(name, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())

    def read_table(self, name: str, columns: Sequence[str] | None = None) -> pa.Table:
        """Return the Parquet file ``name`` as a table (of ``columns`` alone when given)."""
        with self.filesystem.open_input_file(self._at(name)) as source:
            return pq.read_table(
                source, columns=columns and [*columns], page_checksum_verification=True
            )

    def write_table(self, name: str, table: pa.Table) -> None:
        """Write ``table`` as Parquet, compressed with zstd; a flipped bit is seen when read."""
        with self.open_output(name) as sink:
            pq.write_table(table, sink, compression="zstd", write_page_checksum=True)

    def read_arrays(self, name: str) -> dict[str, np.ndarray]:
        """Return the arrays that ``write_arrays`` wrote as ``name``, by keyword; never pickles.

        Raises
        ------
        InputError
            When they cannot be read, as arrays of Python objects cannot.
        """
        data = self.read_bytes(name)
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as archive:
                return {key: archive[key] for key in archive.files}
        except (ValueError, TypeError, AttributeError, EOFError, OSError, BadZipFile) as error:
            fix = "Remove it, and run what made it again."
            got = str(error).partition("\n")[0]
            raise InputError(f"{self}/{name}", "damaged", got=got, fix=fix) from error

    def write_arrays(self, name: str, /, **arrays: Any) -> None:
        """Write arrays (or numpy scalars) as one ``.npz`` archive."""
        values = {key: np.asarray(value) for key, value in arrays.items()}
        objects = sorted(key for key, value in values.items() if value.dtype.hasobject)
        if objects:
            raise TypeError(f"{name}: arrays of Python objects cannot be stored: {objects}")
        with self.open_output(name) as sink:
            np.savez(sink, **values)  # type: ignore[arg-type]

    def checksum(self, name: str) -> str:
        """Return the blake2b hash of ``name`` as 32 hexadecimal digits, read block by block."""
        digest = hashlib.blake2b(digest_size=16)
        with self.filesystem.open_input_stream(self._at(name)) as source:
            while block := source.read(_BLOCK_BYTES):
                digest.update(block)
        return digest.hexdigest()


def refuse_credentials(address: str) -> None:
    """Raise InputError for an address with a key in it, which logs and records would show."""
    if _CREDENTIALS.match(address):
        raise InputError(
            _CREDENTIALS.sub(f"{address.partition('://')[0]}://…@", address),
            "credentials in an address end up in logs",
            expected="s3://bucket/folder",
            fix="Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY on every machine instead, or use "
            "~/.aws/credentials.",
        )


@contextmanager
def space_needed(where: str) -> Iterator[None]:
    """Say where there is no room left, which no second attempt would mend."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise InputError(
            where,
            "no room left to write",
            got=error.strerror,
            fix="Free some space and run the same command again: what is finished is kept.",
        ) from error
