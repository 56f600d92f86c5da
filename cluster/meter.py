"""Wall time, CPU time and memory of a driver and its Ray workers, stage by stage."""

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import psutil

from cluster.machine import MACHINE

_INTERVAL_S = 0.5
_GIB = 1 << 30


class Spent(NamedTuple):
    """What a piece of work took of a machine."""

    machine: str
    cpu_seconds: float


@dataclass
class StageUse:
    """What one stage took.

    Memory is this machine's. CPU is this machine's, and what `Meter.add` was told of others.
    """

    name: str
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_gib: float = 0.0
    largest_worker_gib: float = 0.0
    reused: bool = False


@dataclass
class Meter:
    """Samples the driver, its descendants and Ray's workers while stages run.

    Pages that several processes share (the object store) count once: private memory is summed, and
    the largest shared part is added to it.
    """

    stages: list[StageUse] = field(default_factory=list)
    _cpu: dict[int, float] = field(default_factory=dict)
    _cpu_before: float = 0.0
    _cpu_elsewhere: float = 0.0
    _workers: dict[psutil.Process, bool] = field(default_factory=dict)
    _peak_bytes: int = 0
    _worker_bytes: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __enter__(self) -> "Meter":
        self._started = time.perf_counter()
        self._sample()
        self._cpu_before = self.cpu_seconds  # of workers that have served other jobs, say
        self._thread = threading.Thread(target=self._watch, name="tenfold-meter", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[StageUse]:
        """Measure a block under ``name``."""
        use = StageUse(name)
        self._sample()
        cpu, self._peak_bytes, self._worker_bytes = self.cpu_seconds, 0, 0
        started = time.perf_counter()
        try:
            yield use
        finally:
            self._sample()
            use.seconds = time.perf_counter() - started
            use.cpu_seconds = self.cpu_seconds - cpu
            use.peak_gib = self._peak_bytes / _GIB
            use.largest_worker_gib = self._worker_bytes / _GIB
            self.stages.append(use)

    @property
    def cpu_seconds(self) -> float:
        """CPU seconds since the meter was started, of processes that have ended as well."""
        return sum([*self._cpu.values()]) - self._cpu_before + self._cpu_elsewhere

    def add(self, spent: Spent) -> None:
        """Count what a piece took of another machine; those of this one are seen already."""
        if spent.machine != MACHINE:
            self._cpu_elsewhere += spent.cpu_seconds

    @property
    def total_seconds(self) -> float:
        """Wall seconds since the meter was started."""
        return time.perf_counter() - self._started

    @property
    def peak_gib(self) -> float:
        """Highest memory of all processes together, in any stage, the one at work included."""
        return max([self._peak_bytes / _GIB, *(stage.peak_gib for stage in self.stages)])

    def table(self) -> list[dict[str, Any]]:
        """Return the stages as JSON-able rows."""
        return [asdict(stage) for stage in self.stages]

    def _watch(self) -> None:
        while not self._stop.wait(_INTERVAL_S):
            self._sample()

    def _sample(self) -> None:
        with self._lock:
            private, shared = 0, 0
            for process, is_worker in self._ours().items():
                with contextlib.suppress(psutil.Error):
                    times = process.cpu_times()
                    self._cpu[process.pid] = times.user + times.system
                    memory = process.memory_info()
                    common = getattr(memory, "shared", 0)
                    private, shared = private + memory.rss - common, max(shared, common)
                    if is_worker:
                        self._worker_bytes = max(self._worker_bytes, memory.rss - common)
            self._peak_bytes = max(self._peak_bytes, private + shared)

    def _ours(self) -> dict[psutil.Process, bool]:
        """Return this process, its descendants and Ray's workers, and which are workers.

        The workers of a submitted driver descend from the raylet, not from the driver: then all on
        this machine count. Those of an embedded Ray are the driver's own, and others' do not.
        """
        me = psutil.Process()
        family = {me, *me.children(recursive=True)}
        embedded = any(_is_raylet(process) for process in family)
        looked_at: dict[psutil.Process, bool] = {}
        ours: dict[psutil.Process, bool] = {}
        for process in psutil.process_iter():
            # A worker renames itself when it starts an actor or a task: look again until it has.
            is_worker = self._workers.get(process, False) or _is_worker(process)
            looked_at[process] = is_worker
            if process in family or (is_worker and not embedded):
                ours[process] = is_worker
        self._workers = looked_at
        return ours


def _is_raylet(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return process.name() == "raylet"
    return False


def _is_worker(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error, IndexError):
        return process.cmdline()[0].startswith("ray::")
    return False
