"""`tenfold profile`: what tol and workers x threads trade on this machine, and what to use."""

import json
import math
import os
import re
import statistics
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from actors.lasso.certificate import certify
from actors.lasso.problem import LassoProblem
from cluster.errors import InputError, TenfoldError
from cluster.storage import Store
from pipelines.bench.config import make_work, require_folder, require_tols
from pipelines.bench.lasso import machine
from pipelines.bench.measure import process
from pipelines.bench.problems import ProblemConfig, SavedProblem, save
from pipelines.bench.recommend import busy, compare, recommend
from pipelines.bench.saved import load_answers, load_problem
from pipelines.bench.solvers import OWN
from pipelines.news.prepare import say

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class ProfileConfig:
    """What is tried."""

    problem: ProblemConfig = field(default_factory=ProblemConfig)
    engine: str = field(default="newton", metadata={"help": f"Engine: {', '.join(OWN)}."})
    alphas: int = field(default=43, metadata={"help": "Alphas of the path."})
    ratio: float = field(default=20.0, metadata={"help": "The path ends at alpha_max / RATIO."})
    tols: tuple[float, ...] = field(
        default=(1e-3, 1e-4, 1e-6),
        metadata={"help": "Relative gaps; the tightest is what the others are compared with."},
    )
    layouts: tuple[str, ...] = field(
        default=(), metadata={"help": "WORKERSxTHREADS, e.g. 1x1,2x1,1x2; default: by the cores."}
    )
    runs: int = field(default=3, metadata={"help": "Runs that a figure is the median of."})
    seconds: float = field(
        default=1.0, metadata={"help": "Seconds for each measurement of memory bandwidth."}
    )
    out: str = field(default="runs/profile", metadata={"help": "Folder for the results."})

    def __post_init__(self) -> None:
        if self.engine not in OWN:
            raise InputError("--engine", "unknown", ", ".join(OWN), self.engine)
        if len(self.problem.targets) > 1:
            got = ",".join(self.problem.targets)
            raise InputError("--targets", "more than one", "one target", got)
        make_work(self.alphas, self.ratio)
        if not self.tols:
            raise InputError("--tols", "empty", fix="Pass 1e-3,1e-4,1e-6.")
        require_tols("--tols", self.tols)
        if self.runs < 1:
            raise InputError("--runs", "too few", "1 or more", self.runs)
        if not 0 < self.seconds < math.inf:
            raise InputError("--seconds", "out of range", "seconds above 0", self.seconds)
        require_folder(self.out)
        self.pairs  # noqa: B018 - refuses what is no layout

    @property
    def pairs(self) -> tuple[tuple[int, int], ...]:
        """Workers and threads of each layout."""
        cores = os.cpu_count() or 1
        powers = [2**i for i in range(cores.bit_length()) if 2**i < cores]
        standard = [f"{n}x1" for n in (*powers, cores)] + ([f"1x{cores}"] if cores > 1 else [])
        pairs = []
        for text in self.layouts or standard:
            match = re.fullmatch(r"([1-9]\d*)[x×]([1-9]\d*)", text)
            if match is None:
                raise InputError("--layouts", "no layout", "WORKERSxTHREADS, say 2x1", text)
            pairs.append((int(match[1]), int(match[2])))
        return tuple(dict.fromkeys(pairs))


def profile(config: ProfileConfig) -> dict[str, Any]:
    """Measure, write ``profile.json``, and return it.

    Each layout solves one path a worker, all at once, each tol in turn. The bandwidths are those
    of all workers together: of the screening product, and of a plain copy for comparison.
    """
    Path(config.out).mkdir(parents=True, exist_ok=True)
    layouts: list[dict[str, Any]] = []
    tols = sorted(set(config.tols), reverse=True)
    with tempfile.TemporaryDirectory(dir=config.out, prefix="problem-") as name:
        folder = Path(name)
        problem = save(config.problem, folder)
        if problem.n_targets > 1:
            raise InputError("--y", "several targets", "one column", problem.n_targets)
        alphas = make_work(config.alphas, config.ratio).alphas(problem.alpha_max)
        for workers, threads in config.pairs:
            with _pool(problem, config.engine, workers, threads) as team:
                rows = _layout(config, team, alphas, tols, folder / "answers")
            for row in rows:
                row = {"workers": workers, "threads": threads, **row}
                layouts.append(row)
                say(
                    f"{workers} x {threads} · tol {row['tol']:g}: {row['paths_per_s']:.3g} paths/s"
                    f" · X'r {row['screen_gb_s']:.3g} of {row['copy_gb_s']:.3g} GB/s"
                )
        compared = _compare_tols(folder, alphas, tols)
    results = {
        "problem": {
            "title": problem.title,
            "rows": problem.n_samples,
            "columns": problem.n_features,
            "nonzeros": problem.nonzeros,
        },
        "engine": config.engine,
        "alphas": config.alphas,
        "ratio": config.ratio,
        "machine": machine(),
        "tols": compared,
        "layouts": layouts,
        **recommend(compared, layouts),
        "warning": busy(layouts, os.cpu_count() or 1),
        "out": config.out,
    }
    Store(config.out).write_json("profile.json", results)
    return results


class Team:
    """Worker processes that take the same order at the same time."""

    def __init__(self, members: Sequence[subprocess.Popen[str]]) -> None:
        self._members = members
        self._replies()  # each says that it is ready

    def all_do(self, orders: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Give each its order, and return what they answer once all have."""
        for member, order in zip(self._members, orders, strict=True):
            assert member.stdin is not None
            member.stdin.write(json.dumps(order) + "\n")
            member.stdin.flush()
        return self._replies()

    @property
    def size(self) -> int:
        """Number of workers."""
        return len(self._members)

    def _replies(self) -> list[dict[str, Any]]:
        replies = []
        for member in self._members:
            assert member.stdout is not None
            line = member.stdout.readline()
            if not line:
                code = member.wait()
                raise TenfoldError(
                    f"profile: a worker ended with code {code}. Try fewer workers: each holds the "
                    "problem, so memory may have run out."
                )
            replies.append(json.loads(line))
        return replies


@contextmanager
def _pool(problem: SavedProblem, engine: str, workers: int, threads: int) -> Iterator[Team]:
    setup = {"solver": engine, "problem": str(problem.folder)}
    command, environment = process("worker", setup, threads=threads)
    members = [
        subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(workers)
    ]
    try:
        yield Team(members)
    finally:
        for member in members:
            member.kill()
            member.communicate()


def _layout(
    config: ProfileConfig, team: Team, alphas: FloatArray, tols: Sequence[float], answers: Path
) -> list[dict[str, Any]]:
    bandwidth = {
        kind: sum(
            reply["gb_per_s"]
            for reply in team.all_do([{"do": kind, "seconds": config.seconds}] * team.size)
        )
        for kind in ("copy", "screen")
    }
    rows = []
    for tol in tols:
        order = {"do": "solve", "alphas": alphas.tolist(), "tol": tol, "answers": ""}
        first = {**order, "answers": str(_answers(answers.parent, tol))}
        runs = [team.all_do([first, *[order] * (team.size - 1)]) for _ in range(config.runs)]
        wall = statistics.median(max(r["wall_seconds"] for r in run) for run in runs)
        cpu = statistics.median(sum(r["cpu_seconds"] for r in run) / len(run) for run in runs)
        rows.append(
            {
                "tol": tol,
                "wall_seconds": wall,
                "cpu_seconds_per_path": cpu,
                "paths_per_s": team.size / wall,
                "peak_gib_each": max(reply["peak_gib"] for reply in runs[-1]),
                "screen_gb_s": bandwidth["screen"],
                "copy_gb_s": bandwidth["copy"],
                "share_of_copy": bandwidth["screen"] / bandwidth["copy"],
            }
        )
    return rows


def _answers(folder: Path, tol: float) -> Path:
    return folder / f"answers-{tol!r}.npz"


def _compare_tols(folder: Path, alphas: FloatArray, tols: Sequence[float]) -> list[dict[str, Any]]:
    """Compare each tol's dictionaries with the tightest one's, and certify all of them."""
    problem = LassoProblem(*load_problem(folder))
    tightest, _ = load_answers(_answers(folder, min(tols)))
    rows = []
    for tol in tols:
        coefs, intercepts = load_answers(_answers(folder, tol))
        gaps = [
            certify(problem, coefs[:, [i]], intercepts[i], alpha).relative_gap
            for i, alpha in enumerate(alphas)
        ]
        rows.append({"tol": tol, "gap": max(0.0, *gaps), **compare(coefs, tightest)})
    return rows
