"""What runs in a folder, for people and for `tenfold resume`: one small file, written as it goes.

Whether the driver that wrote it lives is not in it: `cluster.lock` knows.
"""

from __future__ import annotations

import hashlib
import os
import re
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from cluster.errors import TenfoldError
from cluster.lock import check_held
from cluster.meter import Meter, Spent
from cluster.storage import Store

RECORD = "run.json"

State = Literal["running", "finished", "stopped", "failed"]

_WRITE_EVERY_S = 5.0
_CREDENTIALS = re.compile(r"//[^/@]*@")
_PACKAGES = ("cluster", "actors", "pipelines")


@dataclass(kw_only=True)
class RunRecord:
    """What is known of a run.

    Attributes
    ----------
    command : list of str
        Arguments of ``tenfold`` that repeat the run, defaults spelled out; a name alone when no
        command line can say them.
    directory : str
        Where relative paths begin.
    inputs : dict
        What was read, and what tells one version of it from another.
    stage, done, total, unit
        How far the stage at work is.
    started, updated : str
        First start, and when this was written, UTC.
    attempts : int
        Starts of the same command, the last one included.
    seconds, cpu_seconds, peak_gib : float
        Of all attempts together. CPU of the driver's machine and of work finished on others,
        memory of the driver's.
    """

    command: list[str]
    directory: str = ""
    inputs: dict[str, str] = field(default_factory=dict)
    state: State = "running"
    error: str = ""
    stage: str = ""
    done: int = 0
    total: int = 0
    unit: str = ""
    started: str = ""
    updated: str = ""
    attempts: int = 1
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_gib: float = 0.0
    headline: str = ""
    host: str = ""
    pid: int = 0
    ray_job: str = ""
    tenfold: str = ""
    code: str = ""


@dataclass
class OpenRecord:
    """The record of the run that this process does."""

    folder: Store
    known: RunRecord
    meter: Meter
    _began: float = field(default_factory=time.monotonic)
    _written_at: float = float("-inf")
    _earlier: tuple[float, float, float] = (0.0, 0.0, 0.0)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def name(self) -> str:
        """What metrics call the run."""
        return run_name(self.folder)

    def say_how_far(
        self, stage: str, done: int, total: int, unit: str, *, ray_job: str = "", now: bool = False
    ) -> None:
        """Note how far ``stage`` is; written every few seconds, or ``now``."""
        known = self.known
        now = now or stage != known.stage
        known.stage, known.done, known.total, known.unit = stage, done, total, unit
        known.ray_job = ray_job or known.ray_job
        if now or time.monotonic() - self._written_at >= _WRITE_EVERY_S:
            # A run does not end because a note about it could not be written.
            with suppress(OSError, TenfoldError):
                self.write()

    def write(self) -> None:
        """Write what is known by now, unless another driver took over the folder."""
        check_held(self.folder)
        with self._lock:
            seconds, cpu_seconds, peak_gib = self._earlier
            self.known.updated = _utc_now()
            self.known.seconds = seconds + time.monotonic() - self._began
            self.known.cpu_seconds = cpu_seconds + self.meter.cpu_seconds
            self.known.peak_gib = max(peak_gib, self.meter.peak_gib)
            self.folder.write_json(RECORD, asdict(self.known))
            self._written_at = time.monotonic()

    def go_on_from(self, before: RunRecord) -> None:
        """Add up what an unfinished attempt at the same command has cost."""
        self.known.started = before.started
        self.known.attempts = before.attempts + 1
        self._earlier = before.seconds, before.cpu_seconds, before.peak_gib


def run_name(folder: Store) -> str:
    """Return the last part of a folder's name."""
    return folder.path.rstrip("/").rpartition("/")[2]


_open: OpenRecord | None = None


def current() -> OpenRecord | None:
    """Return the record of the run that this process does, if it does one."""
    return _open


def count_spent(spent: Spent) -> None:
    """Add what a piece of work took to the record of the run, if one is kept."""
    if _open is not None:
        _open.meter.add(spent)


@contextmanager
def recorded(
    folder: Store,
    command: Sequence[str],
    inputs: Mapping[str, str] | None = None,
    meter: Meter | None = None,
) -> Iterator[OpenRecord]:
    """Keep a record in ``folder`` while the block runs; what it ends with is its state.

    Within another record of this process it is that one: stages belong to their run.

    Parameters
    ----------
    folder : Store
    command : sequence of str
        Arguments of ``tenfold`` that repeat the run; credentials in addresses are left out.
    inputs : mapping of str to str, optional
        See `RunRecord`.
    meter : Meter, optional
        A running one; by default one of the record's own.
    """
    global _open
    if _open is not None:
        yield _open
        return
    with _running(meter) as metered:
        record = OpenRecord(folder, _new_record(command, inputs or {}), metered)
        before = read_record(folder)
        if before and before.command == record.known.command and before.state != "finished":
            record.go_on_from(before)
        record.write()
        _open = record
        try:
            yield record
            record.known.state = "finished"
        except BaseException as error:
            record.known.state = "stopped" if isinstance(error, KeyboardInterrupt) else "failed"
            record.known.error = _first_line(error)
            with suppress(OSError, TenfoldError):
                record.write()
            raise
        finally:
            _open = None
        record.write()


def read_record(folder: Store) -> RunRecord | None:
    """Return what ``run.json`` in ``folder`` says; None where there is none that can be read."""
    try:
        said = folder.read_json(RECORD)
        return RunRecord(**{name: said[name] for name in _FIELDS if name in said})
    except (OSError, ValueError, TypeError):
        return None


_FIELDS = [one.name for one in fields(RunRecord)]


def public(argument: str) -> str:
    """Return an argument without the credentials that an address may hold."""
    return _CREDENTIALS.sub("//…@", argument)


@cache
def code_version() -> str:
    """Return a hash of our own source text: versions under development share a number."""
    root = Path(__file__).resolve().parent.parent
    digest = hashlib.blake2b(digest_size=8)
    for package in _PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            digest.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()


def tenfold_version() -> str:
    """Return the version of the installed package."""
    try:
        return version("tenfold")
    except PackageNotFoundError:
        return "not installed"


@contextmanager
def _running(meter: Meter | None) -> Iterator[Meter]:
    if meter is not None:
        yield meter
        return
    with Meter() as own, own.stage("run"):
        yield own


def _new_record(command: Sequence[str], inputs: Mapping[str, str]) -> RunRecord:
    return RunRecord(
        command=[public(argument) for argument in command],
        directory=str(Path.cwd()),
        inputs={public(name): look for name, look in inputs.items()},
        started=_utc_now(),
        host=socket.gethostname(),
        pid=os.getpid(),
        tenfold=tenfold_version(),
        code=code_version(),
    )


def _utc_now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _first_line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return public(text[0]) if text else type(error).__name__
