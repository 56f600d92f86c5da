"""What of a stage is finished: one line of JSON for each piece, appended as it is done."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from cluster.journal import append_line, clear, read_lines
from cluster.lock import check_held
from cluster.storage import Store

# Readers of a folder of Parquet files pass over names that begin so.
MANIFEST = "_manifest.jsonl"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One finished piece.

    ``key`` names the shard or unit, ``fingerprint`` what determined it, ``files`` maps each file
    it wrote to (size in bytes, checksum), and ``summary`` is what the function returned.
    """

    key: str
    fingerprint: str
    files: dict[str, tuple[int, str]] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    attempts: int = 1


@dataclass(frozen=True)
class Manifest:
    """The finished pieces of a stage, in the order of their keys in the call."""

    store: Store
    entries: tuple[Entry, ...]
    reused: int = 0

    @property
    def summaries(self) -> list[dict[str, Any]]:
        """What the function returned for each shard, in the order of the shards."""
        return [entry.summary for entry in self.entries]

    @property
    def files(self) -> list[str]:
        """All files of the stage, in the order of the shards."""
        return [name for entry in self.entries for name in entry.files]

    @property
    def rows(self) -> int:
        """The sum of ``rows`` over the summaries that have it."""
        return sum(int(summary.get("rows", 0)) for summary in self.summaries)

    @property
    def seconds(self) -> float:
        """Worker seconds spent on all pieces, in whichever run they were done."""
        return sum(entry.seconds for entry in self.entries)


def append_entry(store: Store, entry: Entry) -> None:
    """Add a finished piece to the manifest in ``store``; its files must be complete by now.

    Raises
    ------
    InputError
        When another driver took over the folder.
    """
    check_held(store)
    line = json.dumps(asdict(entry), ensure_ascii=False, separators=(",", ":"))
    append_line(store, MANIFEST, line)


def clear_entries(store: Store) -> None:
    """Forget what is finished."""
    clear(store, MANIFEST)


def read_entries(store: Store, fingerprint: str) -> dict[str, Entry]:
    """Return the entries made under ``fingerprint``, by key; the last one wins.

    A torn line, left by a driver that was killed while writing, counts as not written.
    """
    found: dict[str, Entry] = {}
    for line in read_lines(store, MANIFEST):
        entry = _parse(line)
        if entry is not None and entry.fingerprint == fingerprint:
            found[entry.key] = entry
    return found


def _parse(line: str) -> Entry | None:
    try:
        fields = json.loads(line)
        files = {name: (int(size), str(check)) for name, (size, check) in fields["files"].items()}
        return Entry(**{**fields, "files": files})
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def intact(store: Store, entries: Iterable[Entry], *, verify: bool = False) -> dict[str, Entry]:
    """Keep the entries whose files are all there with their recorded size, by key.

    With ``verify`` the content is read as well and held against the recorded checksums.
    """
    kept = list(entries)
    names = sorted({name for entry in kept for name in entry.files})
    sizes = dict(zip(names, store.sizes(names), strict=True)) if names else {}
    return {
        entry.key: entry
        for entry in kept
        if all(
            sizes[name] == size and (not verify or store.checksum(name) == check)
            for name, (size, check) in entry.files.items()
        )
    }
