"""Show how far a stage is: a bar on a terminal, plain lines in a job log, metrics in Ray."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, TextIO

import ray
from ray.util import metrics
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress

from cluster.run_record import current

# A log is read afterwards: a hundred lines tell enough of a night.
_LINE_EVERY_S = 2.0
_LINE_EVERY_SHARE = 0.1  # of the time since the stage began
_LINE_EVERY_AT_MOST_S = 600.0
_SEARCH_BOUNDARIES_S = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0]
_DESCRIPTIONS = {
    "tenfold_shards_done": "Shards finished, by stage",
    "tenfold_shards_retried": "Shards given out again after a failure, by stage",
    "tenfold_rows": "Rows written by finished shards, by stage",
    "tenfold_bytes": "Bytes written by finished shards and units, by stage",
    "tenfold_units_done": "Solver units finished, by stage and engine",
    "tenfold_units_retried": "Solver units given out again after a failure, by stage",
    "tenfold_workers": "Solver workers that are ready, by stage",
    "tenfold_largest_gap": "Largest relative duality gap among finished units, by stage",
    "tenfold_progress": "Finished share of the running stage, from 0 to 1",
    "tenfold_train_epoch": "Epochs of training finished",
    "tenfold_train_loss": "Training loss of the last epoch",
    "tenfold_train_val_ap": "Average precision on validation panels after the last epoch",
    "tenfold_train_panels_per_s": "Panels trained on a second, in the last epoch",
    "tenfold_knn_queries": "Patches looked up in the memory bank",
    "tenfold_knn_seconds": "Time of one search of a part of the memory bank",
}
_made: dict[tuple[str, str], Any] = {}  # by Ray session and name: they die with their session


class Progress:
    """Count finished pieces of a stage, and tell the user on stderr.

    Parameters
    ----------
    label : str
        The stage.
    total : int
        How many pieces there are.
    unit : str
        What a piece is called, in the plural.
    """

    def __init__(
        self, label: str, total: int, unit: str = "shards", stream: TextIO | None = None
    ) -> None:
        self.label, self.total, self.unit = label, total, unit
        self.done = 0
        self._fresh = 0  # pieces of this run: those found finished say nothing about the rate
        self._stream = stream or sys.stderr
        self._started = self._printed_at = time.monotonic()
        self._printed_done = -1
        self._bar: RichProgress | None = None

    def __enter__(self) -> Progress:
        self._started = time.monotonic()
        self._printed_at = float("-inf")
        self._record(now=True)
        if self._stream.isatty():
            self._bar = RichProgress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[note]}"),
                TimeElapsedColumn(),
                console=Console(file=self._stream),
                transient=True,
            )
            self._bar.start()
            self._bar.add_task(self.label, total=self.total, note="")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        self._record(now=True)
        if self._bar is not None or self._printed_done != self.done or kind is not None:
            self._print("" if kind is None else f"stopped by {kind.__name__}")

    def advance(self, n: int = 1, note: str = "", *, reused: bool = False) -> None:
        """Count ``n`` more finished pieces; ``reused`` ones were finished by an earlier run."""
        self.done += n
        self._fresh += 0 if reused else n
        if self.total:
            gauge("tenfold_progress", self.done / self.total, {"stage": self.label})
        self._record()
        self._refresh(note)

    def say(self, text: str) -> None:
        """Show one line about this stage, above the bar if there is one."""
        if self._bar is not None:
            self._bar.console.print(f"{self.label}: {text}", highlight=False, markup=False)
        else:
            self._write(f"{self.label}: {text}")

    def _refresh(self, note: str) -> None:
        if self._bar is not None:
            task = self._bar.tasks[0].id
            text = " · ".join(part for part in (note, self._speed()) if part)
            self._bar.update(task, completed=self.done, note=text)
        elif self.done >= self.total or time.monotonic() - self._printed_at >= self._pause():
            self._print(note)

    def _pause(self) -> float:
        share = _LINE_EVERY_SHARE * (time.monotonic() - self._started)
        return min(max(_LINE_EVERY_S, share), _LINE_EVERY_AT_MOST_S)

    def _record(self, *, now: bool = False) -> None:
        if (record := current()) is not None:
            job = ray.get_runtime_context().get_job_id() if ray.is_initialized() else ""
            record.say_how_far(self.label, self.done, self.total, self.unit, ray_job=job, now=now)

    def _print(self, note: str) -> None:
        self._printed_at, self._printed_done = time.monotonic(), self.done
        reused = self.done - self._fresh
        parts = [
            f"{self.label}: {self.done}/{self.total} {self.unit}",
            f"{reused} from an earlier run" if reused else "",
            self._speed(),
            note,
        ]
        self._write(" · ".join(part for part in parts if part))

    def _speed(self) -> str:
        seconds = time.monotonic() - self._started
        if not self._fresh or seconds <= 0:
            return ""
        rate = self._fresh / seconds
        if self.done >= self.total:
            return f"{seconds:.1f} s"
        return f"{rate:.3g}/s, {duration((self.total - self.done) / rate)} left"

    def _write(self, line: str) -> None:
        print(line, file=self._stream, flush=True)


def duration(seconds: float) -> str:
    """Write seconds as ``42 s``, ``3 min 05 s`` or ``2 h 07 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def count(name: str, value: float = 1, tags: Mapping[str, str] | None = None) -> None:
    """Add ``value`` to a counter that Prometheus shows as ``ray_<name>_total``.

    All metrics carry the name of the run in the tag ``run``; workers, which do not know it, say it
    themselves.
    """
    if value > 0 and (metric := _metric(metrics.Counter, name, tags)) is not None:
        metric.inc(value, tags=_tags(tags))


def gauge(name: str, value: float, tags: Mapping[str, str] | None = None) -> None:
    """Set a gauge that Ray's dashboard and Prometheus show as ``ray_<name>``."""
    if (metric := _metric(metrics.Gauge, name, tags)) is not None:
        metric.set(value, tags=_tags(tags))


def observe_seconds(name: str, value: float, tags: Mapping[str, str] | None = None) -> None:
    """Add a duration to a histogram that Prometheus shows as ``ray_<name>_bucket``."""
    more = {"boundaries": _SEARCH_BOUNDARIES_S}
    if (metric := _metric(metrics.Histogram, name, tags, more)) is not None:
        metric.observe(value, tags=_tags(tags))


def _tags(tags: Mapping[str, str] | None) -> dict[str, str]:
    record = current()
    return {"run": record.name if record is not None else "", **(tags or {})}


def _metric(
    kind: type,
    name: str,
    tags: Mapping[str, str] | None,
    more: Mapping[str, Any] | None = None,
) -> Any:
    if not ray.is_initialized():
        return None
    key = (ray.get_runtime_context().gcs_address, name)
    if key not in _made:
        keys, about = tuple(sorted(_tags(tags))), _DESCRIPTIONS.get(name, name)
        _made[key] = kind(name, description=about, tag_keys=keys, **(more or {}))
    return _made[key]
