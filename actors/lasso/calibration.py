"""Which engines are faster here: what each took for the same sample, and the choice it leads to."""

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

from actors.lasso.engines import device_of
from actors.lasso.problem import FloatArray

SAMPLE_ALPHAS = 8
# The sample leaves out the smallest alphas, where most of a path's time goes.
SAMPLE_SHARE = 0.7


@dataclass(frozen=True)
class Trial:
    """What an engine took for the sample, or why it was not tried.

    Attributes
    ----------
    engine : str
    workers : int
        How many workers of this engine the machines have room for.
    seconds : float or None
        Of one worker for one target and fold, certified to the tolerance; None without one.
    note : str
        Why there is none.
    shared_seconds : float or None
        The same for a target and fold by itself, as engines that share the grid solve it: a device
        is faster where it has all of them at once. None where the machines are not to share it.
    """

    engine: str
    workers: int = 0
    seconds: float | None = None
    note: str = ""
    shared_seconds: float | None = None

    @property
    def rate(self) -> float:
        """Samples a second of all workers together; 0 where unmeasured."""
        return _rate(self.workers, self.seconds)

    @property
    def shared_rate(self) -> float:
        """The same where several engines share the grid."""
        return _rate(self.workers, self.shared_seconds)

    def describe(self) -> str:
        """Return one phrase such as ``torch:cuda 0.21 s x 1 worker``."""
        if self.seconds is None:
            return f"{self.engine} ({self.note})"
        plural = "" if self.workers == 1 else "s"
        alone = self.shared_seconds
        shared = f" ({alone:.3g} s shared)" if alone not in (None, self.seconds) else ""
        return f"{self.engine} {self.seconds:.3g} s{shared} x {self.workers} worker{plural}"


@dataclass(frozen=True)
class EngineChoice:
    """The engine that solves the grid, or several by commas, and the trials that chose it."""

    engine: str
    workers: int
    trials: tuple[Trial, ...] = ()
    remembered: bool = False

    def describe(self) -> str:
        """Say in one line what was chosen and why."""
        measured = [trial.describe() for trial in self.trials if trial.seconds is not None]
        untried = [trial.describe() for trial in self.trials if trial.note]
        parts = [f"engine {self.engine}"]
        if measured:
            when = "remembered" if self.remembered else "measured on a sample of this problem"
            parts.append(f"{when}: {', '.join(measured)}")
        if untried:
            parts.append(f"not measured: {', '.join(untried)}")
        return "; ".join(parts)

    def as_json(self) -> dict[str, Any]:
        """Return what a run records of the choice."""
        return asdict(self)


def choose(
    trials: Sequence[Trial], default: str, *, samples: float = 0, remembered: bool = False
) -> EngineChoice:
    """Choose the engine of the highest rate, the first of equals; ``default`` if none has one.

    Several are chosen where together they are faster than the best alone (see `team`).

    Parameters
    ----------
    samples : float
        Size of the grid, in samples.
    """
    best = max(trials, key=lambda trial: trial.rate)
    if best.rate == 0:
        best = next(trial for trial in trials if trial.engine == default)
    chosen = team(trials, samples)
    if len(chosen) < 2 or sum(trial.shared_rate for trial in chosen) <= best.rate:
        chosen = [best]
    names, workers = ",".join(t.engine for t in chosen), sum(t.workers for t in chosen)
    return EngineChoice(names, workers, tuple(trials), remembered)


def team(trials: Sequence[Trial], samples: float) -> list[Trial]:
    """Return the engines that finish ``samples`` soonest together, the first of equals first.

    One joins when the time that its workers save is more than the time that one of them needs for
    a sample, for which all may wait at the end, and when no faster one keeps its device busy.
    """
    chosen: list[Trial] = []
    rate = 0.0
    for trial in sorted(trials, key=lambda trial: -trial.shared_rate):
        more, alone = trial.shared_rate, trial.shared_seconds
        if alone is None or device_of(trial.engine) in {device_of(t.engine) for t in chosen}:
            continue
        if not chosen or samples / rate - samples / (rate + more) > alone:
            chosen.append(trial)
            rate += more
    return [trial for trial in trials if trial in chosen]


def _rate(workers: int, seconds: float | None) -> float:
    return 0.0 if seconds is None else workers / max(seconds, 1e-9)


def sample_alphas(alphas: FloatArray) -> FloatArray:
    """Return the few alphas of a path by which engines are compared, decreasing."""
    last = max(1, int(SAMPLE_SHARE * alphas.size))
    chosen = np.unique(np.linspace(0, last - 1, SAMPLE_ALPHAS).round().astype(np.int64))
    return alphas[chosen]


def size_class(X: sp.csc_matrix, cells: int) -> list[int]:
    """Return rows, columns, non-zeros and (fold, target, alpha) cells as rounded powers of two.

    Problems of one class may share a measurement.
    """
    return [round(float(np.log2(max(size, 1)))) for size in (*X.shape, X.nnz, cells)]


class TrialMemory:
    """Trials by key, in a JSON file of this user on this machine.

    A file that cannot be read counts as empty, and one that cannot be written is let be: the
    measurement is then made again.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def recall(self, key: str) -> tuple[Trial, ...] | None:
        """Return the trials remembered under ``key``, if any."""
        with suppress(KeyError, TypeError):
            return tuple(Trial(**trial) for trial in self._read()[key])
        return None

    def remember(self, key: str, trials: Sequence[Trial]) -> None:
        """Keep ``trials`` under ``key``."""
        entries = {**self._read(), key: [asdict(trial) for trial in trials]}
        with suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            descriptor, name = tempfile.mkstemp(dir=self._path.parent, suffix=".json")
            with os.fdopen(descriptor, "w") as file:
                json.dump(entries, file, indent=1)
            Path(name).replace(self._path)

    def _read(self) -> Mapping[str, Any]:
        with suppress(OSError, ValueError):
            entries = json.loads(self._path.read_text())
            if isinstance(entries, dict):
                return entries
        return {}


def cache_folder() -> Path:
    """Return where this user's caches of Tenfold are: below ``XDG_CACHE_HOME``."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "tenfold"
