"""A file of lines that grows line by line, also on S3, where nothing can be appended to.

There it is a row of objects, ``name``, ``name.1``, ``name.2``, …, of which the last is written
again for each line until it is large: a line costs as much as one piece, however many there are.
They are found by counting, never by listing, which some stores do late.
"""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from pathlib import Path

from cluster.storage import Store, space_needed

_PIECE_BYTES = 1 << 15
_LOOK_AHEAD = 16  # pieces asked for at a time


@dataclass(frozen=True)
class _Tail:
    number: int
    data: bytes


_TAILS: dict[tuple[str, str], _Tail] = {}


def append_line(store: Store, name: str, line: str) -> None:
    """Add one line to ``name``; a line torn by an earlier crash is closed first."""
    if "\n" in line:
        raise ValueError(f"append_line: expected one line, got {line!r}")
    if not store.is_local:
        _append_piece(store, name, line.encode() + b"\n")
        return
    path = Path(store.path) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with space_needed(str(store)), path.open("a+b") as log:
        end = log.seek(0, io.SEEK_END)
        log.seek(max(end - 1, 0))
        gap = b"" if log.read(1) in (b"", b"\n") else b"\n"
        log.write(gap + line.encode() + b"\n")
        log.flush()
        os.fsync(log.fileno())


def read_lines(store: Store, name: str) -> list[str]:
    """Return the lines of ``name``, none when it is not there; the last one may be torn."""
    pieces = [store.read_bytes(piece) for piece in _pieces(store, name)]
    return [
        line for piece in pieces for line in piece.decode("utf-8", errors="replace").splitlines()
    ]


def clear(store: Store, name: str) -> None:
    """Remove ``name``."""
    for piece in reversed(_pieces(store, name)):  # so that what a crash leaves has no gap
        store.delete(piece)


def _append_piece(store: Store, name: str, line: bytes) -> None:
    tail = _tail(store, name)
    tail = _Tail(tail.number, tail.data + line)
    store.write_bytes(_piece(name, tail.number), tail.data)
    _TAILS[store.uri, name] = tail


def _tail(store: Store, name: str) -> _Tail:
    """Return the piece to be written: as we wrote it last, unless it has changed since."""
    known = _TAILS.get((store.uri, name))
    size = store.size(_piece(name, known.number)) if known is not None else None
    if known is not None and size == len(known.data) < _PIECE_BYTES:
        return known
    pieces = _pieces(store, name)
    data = store.read_bytes(pieces[-1]) if pieces else b""
    return _Tail(len(pieces) - 1, data) if 0 < len(data) < _PIECE_BYTES else _Tail(len(pieces), b"")


def _pieces(store: Store, name: str) -> list[str]:
    if store.is_local:
        return [name] if store.size(name) is not None else []
    found: list[str] = []
    while True:
        ahead = [_piece(name, len(found) + k) for k in range(_LOOK_AHEAD)]
        there = [size is not None for size in store.sizes(ahead)]
        count = there.index(False) if False in there else _LOOK_AHEAD
        found += ahead[:count]
        if count < _LOOK_AHEAD:
            return found


def _piece(name: str, number: int) -> str:
    return f"{name}.{number}" if number else name
