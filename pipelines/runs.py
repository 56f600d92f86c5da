"""The runs in a folder: what each is, how far, and whether its driver lives."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from pyarrow import fs

from cluster.lock import find_holder
from cluster.manifest import MANIFEST
from cluster.run_record import RECORD, RunRecord, read_record
from cluster.storage import Store

# Where runs and data sets are kept when no --out says otherwise.
DEFAULT_FOLDERS = ("runs", "data")

_DEPTH = 3  # demo/news/run
_OLD_MARKS = ("config.json", "data.json", MANIFEST)


@dataclass(frozen=True)
class Run:
    """One run.

    Attributes
    ----------
    folder : Store
    state : str
        running, finished, failed, stopped (by Ctrl-C, or because its driver was lost), or unknown
        (no record: of an earlier version).
    record : RunRecord or None
    """

    folder: Store
    state: str
    record: RunRecord | None

    @property
    def can_resume(self) -> bool:
        """Whether `tenfold resume` goes on with it."""
        return self.state in ("failed", "stopped")

    def as_json(self) -> dict[str, Any]:
        """Return everything known, as plain values."""
        known = asdict(self.record) if self.record is not None else {}
        return {"run": self.folder.uri, **known, "state": self.state}


def find_runs(folders: Sequence[str]) -> list[Run]:
    """Return the runs at and below ``folders``, the one that was started last first."""
    found = {run.folder.uri: run for folder in folders for run in _below(Store(folder), _DEPTH)}
    by_name = [found[uri] for uri in sorted(found)]
    return sorted(by_name, key=lambda run: run.record.started if run.record else "", reverse=True)


def open_run(folder: Store) -> Run | None:
    """Return the run that ``folder`` holds, if it does."""
    record = read_record(folder)
    if record is None:
        known = any(folder.exists(name) for name in (RECORD, *_OLD_MARKS))
        return Run(folder, "unknown", None) if known else None
    if find_holder(folder) is not None:
        return Run(folder, "running", record)
    if record.state == "running":
        record = replace(record, state="stopped", error="its driver was lost")
    return Run(folder, record.state, record)


def _below(folder: Store, depth: int) -> Iterator[Run]:
    run = open_run(folder)
    if run is not None:
        yield run
    elif depth:
        for name in _folders(folder):
            yield from _below(folder / name, depth - 1)


def _folders(store: Store) -> list[str]:
    selector = fs.FileSelector(store.path, allow_not_found=True)
    try:
        infos = store.filesystem.get_file_info(selector)
    except NotADirectoryError:
        return []
    names = [info.base_name for info in infos if info.type == fs.FileType.Directory]
    return sorted(name for name in names if not name.startswith("."))
