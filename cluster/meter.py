"""Wall time, CPU time and memory of a driver and the Ray workers on its machine, stage by stage."""

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import psutil

_INTERVAL_S = 0.5
_GIB = 1 << 30


@dataclass
class StageUse:
    """What one stage took; CPU and memory are of this machine alone."""

    name: str
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_gib: float = 0.0
    largest_worker_gib: float = 0.0
    reused: bool = False


@dataclass
class Meter:
    """Samples the driver, its descendants and Ray's workers while stages run.

    Memory counts a page shared by several processes (the object store) once, where the system tells
    (proportional set size); elsewhere unique memory is summed.
    """

    stages: list[StageUse] = field(default_factory=list)
    _cpu: dict[int, float] = field(default_factory=dict)
    _peak_bytes: int = 0
    _worker_bytes: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> "Meter":
        self._started = time.perf_counter()
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
        """CPU seconds of every process seen so far, also of those that have ended."""
        return sum(self._cpu.values())

    @property
    def total_seconds(self) -> float:
        """Wall seconds since the meter was started."""
        return time.perf_counter() - self._started

    @property
    def peak_gib(self) -> float:
        """Highest memory of all processes together, in any stage."""
        return max((stage.peak_gib for stage in self.stages), default=0.0)

    def table(self) -> list[dict[str, Any]]:
        """Return the stages as JSON-able rows."""
        return [asdict(stage) for stage in self.stages]

    def _watch(self) -> None:
        while not self._stop.wait(_INTERVAL_S):
            self._sample()

    def _sample(self) -> None:
        total = 0
        for process in _ours():
            with contextlib.suppress(psutil.Error):
                times = process.cpu_times()
                self._cpu[process.pid] = times.user + times.system
                memory = process.memory_full_info()
                size = getattr(memory, "pss", None) or memory.uss
                total += size
                if _is_worker(process.cmdline()):
                    self._worker_bytes = max(self._worker_bytes, size)
        self._peak_bytes = max(self._peak_bytes, total)


def _ours() -> set[psutil.Process]:
    """This process, its descendants, and Ray's workers (no descendants of a submitted driver)."""
    me = psutil.Process()
    found = {me, *me.children(recursive=True)}
    mine = me.uids().real if hasattr(me, "uids") else None
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.uids().real == mine and _is_worker(process.cmdline()):
                found.add(process)
    return found


def _is_worker(command: list[str]) -> bool:
    return bool(command) and command[0].startswith("ray::")
