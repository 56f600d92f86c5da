"""One driver in a run folder: a lease beside the results, which a crash gives back.

``_lock.json`` names the driver, and a thread of it writes the file again every few seconds. On the
machine of the driver, its process tells whether it is alive. Elsewhere a lease counts as given up
when it was not renewed for a minute, by the clock that stamps the store's files: no two machines
need agree on the time.

What is promised: where `flock` on the folder reaches everyone (local disks) two drivers never both
get the lease. Elsewhere (S3, NFS) a driver writes its name, waits, and reads it back: two could
both get it only if a write took effect a second after it was answered. A driver that was suspended
past its lease and taken over finds out before its next entry in a manifest. Should one slip
through nevertheless, the manifest may lose entries, whose work is then done again; none is wrong,
for an entry counts only with the size and checksum of its files.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import psutil

from cluster.errors import InputError
from cluster.machine import MACHINE as _MACHINE
from cluster.storage import Store

# Readers of a folder of Parquet files pass over names that begin so.
LOCK = "_lock.json"
_NOT_NOW = (OSError, InputError)  # a store that does not answer, or has no room for the moment


@dataclass(frozen=True, kw_only=True)
class Terms:
    """How often a lease is renewed, without renewal given up, and how long a claim is held back."""

    renew_s: float = 10.0
    dead_s: float = 60.0
    settle_s: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Holder:
    """The driver that a lock names.

    ``owner`` is made up for each holding; ``machine`` tells hosts, their boots and containers
    apart; ``started`` tells a process from a later one of the same number.
    """

    owner: str
    host: str
    machine: str
    pid: int
    started: float | None
    since: str

    def describe(self) -> str:
        """Return one phrase such as ``process 4711 on gpu1 since 2026-11-21T22:40:10+00:00``."""
        return f"process {self.pid} on {self.host} since {self.since}"


@contextmanager
def hold(folder: Store, *, wait: bool = False, terms: Terms | None = None) -> Iterator[None]:
    """Be the only driver in ``folder``, and below it, for the length of the block.

    Stages inside the block may hold the folder, or one below it, again.

    Parameters
    ----------
    folder : Store
    wait : bool
        Wait for another driver to end, in place of an error.
    terms : Terms, optional

    Raises
    ------
    InputError
        When another driver is at work there, or the folder cannot be written to.
    """
    if _covering(folder) is not None:
        yield
        return
    lease = _Lease(folder, terms or Terms())
    try:
        lease.acquire(wait)
        yield
    finally:
        lease.release()


def check_held(store: Store) -> None:
    """Make sure that no other driver took over a folder of ours that ``store`` is, or is in.

    Raises
    ------
    InputError
        When one did, after this process was silent for too long.
    """
    lease = _covering(store)
    if lease is not None:
        lease.check()


def find_holder(folder: Store, terms: Terms | None = None) -> Holder | None:
    """Return the driver at work in ``folder``; None when there is none, or it is dead."""
    holder = _read(folder)
    if holder is None:
        return None
    if holder.machine == _MACHINE:
        began = _started(holder.pid)
        return holder if began is not None and began == holder.started else None
    age_s = _age_s(folder)
    return holder if age_s is not None and age_s <= (terms or Terms()).dead_s else None


_HELD: dict[str, _Lease] = {}


def _covering(store: Store) -> _Lease | None:
    return next((lease for lease in _HELD.values() if store.is_within(lease.folder)), None)


@dataclass(eq=False)
class _Lease:
    folder: Store
    terms: Terms
    me: Holder = field(init=False)
    lost: str | None = None
    confirmed: tuple[float, float] = (0.0, 0.0)
    ended: threading.Event = field(default_factory=threading.Event)
    guard: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.me = Holder(
            owner=secrets.token_hex(8),
            host=socket.gethostname(),
            machine=_MACHINE,
            pid=os.getpid(),
            started=_started(os.getpid()),
            since=datetime.now(UTC).isoformat(timespec="seconds"),
        )

    def acquire(self, wait: bool) -> None:
        self.folder.check_writable()
        told = None
        while (other := self._claim()) is not None:
            if not wait:
                raise InputError(
                    str(self.folder),
                    "another driver works in this folder",
                    got=other.describe(),
                    fix="Wait for it (--wait does), name another --out, or stop that process; "
                    f"of a machine that is gone the lock ends after {self.terms.dead_s:g} s.",
                )
            if told != other.owner:
                told = other.owner
                print(f"waiting for {other.describe()}", file=sys.stderr, flush=True)
            time.sleep(min(1.0, self.terms.renew_s))
        _HELD[self.folder.uri] = self
        threading.Thread(target=self._renew_all_along, daemon=True, name="run folder lock").start()

    def release(self) -> None:
        self.ended.set()
        _HELD.pop(self.folder.uri, None)
        with suppress(OSError), self.guard, _exclusive(self.folder):  # else it ends by itself
            if self._is_mine():
                self.folder.delete(LOCK)

    def check(self) -> None:
        if self.lost is None and _elapsed_s(self.confirmed) > 2 * self.terms.renew_s:
            try:
                self._renew()
            except _NOT_NOW:
                if _elapsed_s(self.confirmed) > self.terms.dead_s:
                    raise
        if self.lost is not None:
            raise InputError(
                str(self.folder),
                "another driver took over this folder while this one was silent",
                got=self.lost,
                fix="Run the same command again when that one has ended: what is finished is kept.",
            )

    def _claim(self) -> Holder | None:
        """Write our name, unless that of a live driver is there: then return that driver."""
        before = _now()
        with _exclusive(self.folder) as exclusive:
            other = find_holder(self.folder, self.terms)
            if other is not None:
                return other
            if exclusive:
                self.folder.sweep_top()
            self._write()
        if exclusive:
            return None
        settle_s = self.terms.settle_s
        late = _elapsed_s(before) > settle_s
        # One whose claim we may have written over without seeing it finds out when it renews.
        time.sleep(settle_s + (2 * self.terms.renew_s if late else 0.0))
        winner = _read(self.folder)
        if winner is not None and winner.owner == self.me.owner:
            self.confirmed = _now()
            return None
        return winner or self._claim()

    def _renew_all_along(self) -> None:
        while not self.ended.wait(self.terms.renew_s) and self.lost is None:
            with suppress(*_NOT_NOW):  # tried again; `check` judges how long it may go on so
                self._renew()

    def _renew(self) -> None:
        with self.guard, _exclusive(self.folder):
            if self.ended.is_set():
                return
            if self._is_mine():
                self._write()
                return
        winner = _read(self.folder)
        self.lost = winner.describe() if winner else "no lock"

    def _is_mine(self) -> bool:
        found = _read(self.folder)
        return found is not None and found.owner == self.me.owner

    def _write(self) -> None:
        self.folder.write_json(LOCK, asdict(self.me))
        self.confirmed = _now()


def _read(folder: Store) -> Holder | None:
    try:
        return Holder(**folder.read_json(LOCK))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def _age_s(folder: Store) -> float | None:
    """Return how long ago the lock was written, by the clock of the store."""
    probe = f".clock-{secrets.token_hex(4)}"
    try:
        folder.write_bytes(probe, b"")
        now_s = folder.modified_s(probe)
        folder.delete(probe)
    except OSError:  # we may only look
        now_s = time.time()
    written_s = folder.modified_s(LOCK)
    return None if now_s is None or written_s is None else now_s - written_s


@contextmanager
def _exclusive(folder: Store) -> Iterator[bool]:
    """Keep other processes of this machine out, where the file system can; tell whether it does."""
    if not folder.is_local:
        yield False
        return
    descriptor = os.open(folder.path, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            locked = True
        except OSError:  # NFS locks files opened for writing, no folder
            locked = False
        yield locked
    finally:
        os.close(descriptor)


def _now() -> tuple[float, float]:
    return time.monotonic(), time.time()


def _elapsed_s(since: tuple[float, float]) -> float:
    """Seconds since ``since``; of the two clocks one stops while a machine sleeps."""
    return max(now - then for now, then in zip(_now(), since, strict=True))


def _started(pid: int) -> float | None:
    """Return when a process began, for telling it from others; None when it is gone."""
    stat = Path(f"/proc/{pid}/stat")
    try:
        if Path("/proc/self/stat").exists():  # psutil's time moves when the clock is set
            fields = stat.read_text(errors="replace").rpartition(")")[2].split()
            return None if fields[0] in "ZX" else float(fields[19])
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except (OSError, psutil.Error):
        return None
