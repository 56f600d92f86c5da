"""What `tenfold bench lasso` measures."""

import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cluster.errors import InputError
from pipelines.bench.problems import ProblemConfig
from pipelines.bench.solvers import OWN, PEERS


@dataclass(frozen=True)
class Work:
    """A path of ``count`` alphas down to ``alpha_max / ratio``; one alpha is that end alone."""

    count: int
    ratio: float

    @property
    def title(self) -> str:
        """The work in words."""
        end = f"alpha_max/{self.ratio:g}"
        return f"one fit at {end}" if self.count == 1 else f"{self.count} alphas to {end}"

    def alphas(self, alpha_max: float) -> npt.NDArray[np.float64]:
        """Return the decreasing alphas (count,)."""
        return (
            alpha_max
            * np.geomspace(1.0, 1.0 / self.ratio, self.count + (self.count == 1))[
                int(self.count == 1) :
            ]
        )


@dataclass(frozen=True, kw_only=True)
class LassoBenchConfig:
    """Which solvers do which work, how tightly and how often."""

    problem: ProblemConfig = field(default_factory=ProblemConfig)
    alphas: tuple[int, ...] = field(
        default=(20,), metadata={"help": "Alphas of each path; 1: its end alone. E.g. 43,50,1."}
    )
    ratio: tuple[float, ...] = field(
        default=(10.0,),
        metadata={"help": "Where each path ends: alpha_max / RATIO. E.g. 30,50,20."},
    )
    engines: tuple[str, ...] = field(
        default=("newton",),
        metadata={"help": f"Engines of ours, the first is the yardstick: {', '.join(OWN)}."},
    )
    peers: tuple[str, ...] = field(
        default=(),
        metadata={
            "help": f"Of {', '.join(PEERS)}, or none; default: those installed. celer-outer is "
            "celer with its intercept found outside, by us."
        },
    )
    tol: float = field(default=1e-6, metadata={"help": "Relative gap that every answer must meet."})
    curve: tuple[float, ...] = field(
        default=(1e-2, 1e-4), metadata={"help": "Looser gaps asked for too, once, for the plot."}
    )
    runs: int = field(default=3, metadata={"help": "Runs that a figure is the median of."})
    timeout: float = field(
        default=600.0, metadata={"help": "CPU seconds a thread after which a solve is ended."}
    )
    threads: int = field(default=1, metadata={"help": "Threads of each solver."})
    python_for: tuple[str, ...] = field(
        default=(),
        metadata={"help": "PEER=PYTHON: the interpreter of a peer that cannot live in this one."},
    )
    out: str = field(default="runs/bench-lasso", metadata={"help": "Folder for the results."})

    def __post_init__(self) -> None:
        self.works  # noqa: B018 - refuses what is no work
        _require_known("--engines", self.engines, OWN)
        if not self.engines:
            raise InputError("--engines", "empty", fix="Pass newton.")
        if self.peers != ("none",):
            _require_known("--peers", self.peers, PEERS)
        require_tols("--tol", (self.tol,))
        require_tols("--curve", self.curve)
        for option, value in (("--runs", self.runs), ("--threads", self.threads)):
            if value < 1:
                raise InputError(option, "too few", "1 or more", value)
        if not 0 < self.timeout < math.inf:
            raise InputError("--timeout", "out of range", "seconds above 0", self.timeout)
        require_folder(self.out)
        self.pythons  # noqa: B018

    @property
    def works(self) -> tuple[Work, ...]:
        """The paths: ``alphas`` and ``ratio`` in pairs, a single one of either for all."""
        n = max(len(self.alphas), len(self.ratio))
        if not self.alphas or not self.ratio or {len(self.alphas), len(self.ratio)} - {1, n}:
            got = f"{len(self.alphas)} and {len(self.ratio)}"
            raise InputError("--alphas, --ratio", "not in pairs", "as many of each", got)
        alphas = self.alphas * (n // len(self.alphas))
        ratios = self.ratio * (n // len(self.ratio))
        return tuple(make_work(*pair) for pair in zip(alphas, ratios, strict=True))

    @property
    def pythons(self) -> dict[str, str]:
        """Interpreter of each peer that has one of its own."""
        chosen = {}
        for item in self.python_for:
            name, _, python = item.partition("=")
            _require_known("--python-for", (name,), PEERS)
            if not Path(python).is_file():
                fix = f"Pass {name}=/path/to/bin/python."
                raise InputError("--python-for", "no such interpreter", got=python or item, fix=fix)
            chosen[name] = python
        return chosen


def make_work(count: int, ratio: float) -> Work:
    """Return the work of ``--alphas`` and ``--ratio``, refusing what is none."""
    if count < 1:
        raise InputError("--alphas", "too few", "1 or more", count)
    if not 1 < ratio < math.inf:
        raise InputError("--ratio", "out of range", "more than 1, and finite", ratio)
    return Work(count, ratio)


def require_tols(option: str, tols: tuple[float, ...]) -> None:
    """Refuse what is no relative gap."""
    for tol in tols:
        if not 0 < tol < 1:
            raise InputError(option, "out of range", "between 0 and 1, say 1e-6", tol)


def require_folder(out: str) -> None:
    """Refuse what cannot become a folder."""
    if not out.strip():
        raise InputError("--out", "empty", fix="Name a folder, or leave the option out.")
    if "://" in out:
        raise InputError("--out", "not on this machine", "a local folder", out)
    if Path(out).exists() and not Path(out).is_dir():
        raise InputError("--out", "not a folder", got=out, fix="Name a folder.")


def _require_known(option: str, names: tuple[str, ...], known: dict) -> None:
    unknown = [name for name in names if name not in known]
    if unknown:
        raise InputError(option, "unknown", ", ".join(known), unknown[0])
