"""The grid of folds x alphas x targets: alphas, units, table, and the choice of alpha."""

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from actors.lasso.engines import DEVICE_ENGINES, ENGINES, device_of
from actors.lasso.unit import cell_result, fold_result
from cluster.errors import InputError
from cluster.units import Unit

FloatArray = npt.NDArray[np.float64]
Results = Mapping[str, Mapping[str, np.ndarray]]

AUTO = "auto"
RULES = ("min", "1se")
# Targets have variance 1 and texts length 1: what is smaller is rounding.
_NO_CORRELATION = 1e-12
_LARGEST_RATIO = 1e4  # of alphas, beyond which the next solution hardly costs more
ALL_ROWS = -1  # fold number of the solution on all rows


@dataclass(frozen=True, kw_only=True)
class PathConfig:
    """Which alphas are solved, by which engine, how tightly, and how one is chosen."""

    engine: str = field(
        default="newton",
        metadata={
            "help": f"Solver: {', '.join((*ENGINES, *DEVICE_ENGINES))}; several by commas, such as "
            "newton,torch:cuda, each on what it runs on; or auto: those that measure faster on "
            "these machines. One engine gives the same bytes every time, several the same answer "
            "within --tol.",
            "panel": "Lasso",
        },
    )
    alphas: int = field(
        default=50, metadata={"help": "Number of alphas, evenly spaced in log.", "panel": "Lasso"}
    )
    alpha_ratio: float = field(
        default=30.0,
        metadata={
            "help": "The grid ends at alpha_max / alpha_ratio, alpha_max of all rows.",
            "panel": "Lasso",
        },
    )
    alpha_grid: tuple[float, ...] = field(
        default=(),
        metadata={"help": "Alphas of your own instead, for every target.", "panel": "Lasso"},
    )
    tol: float = field(
        default=1e-6,
        metadata={
            "help": "Largest duality gap, relative to the target's variance.",
            "panel": "Lasso",
        },
    )
    rule: str = field(
        default="min",
        metadata={
            "help": "Choice of alpha: min (lowest error) or 1se (one standard error above).",
            "panel": "Lasso",
        },
    )
    stability: int = field(
        default=0,
        metadata={
            "help": "Random halves on which words must reappear; 0 skips it.",
            "panel": "Lasso",
        },
    )
    min_stability: float = field(
        default=0.0,
        metadata={
            "help": "Drop words that reappear in a smaller share of the halves than this.",
            "panel": "Lasso",
        },
    )
    early_stop: float = field(
        default=0.0,
        metadata={
            "help": "End a target's path once the mean validation error of its folds is this share "
            "above its minimum, such as 0.01; 0 solves the whole grid.",
            "panel": "Lasso",
        },
    )
    multitask: bool = field(
        default=False,
        metadata={
            "help": "One set of n-grams and one alpha for all targets: an n-gram gets a weight for "
            "each of them, or none. Rows that lack a target are left out.",
            "panel": "Lasso",
        },
    )
    stretch: int = field(
        default=10, metadata={"help": "Alphas solved in one unit of work.", "panel": "Lasso"}
    )

    def __post_init__(self) -> None:
        self._check_engines()
        for option, value in (("--alphas", self.alphas), ("--stretch", self.stretch)):
            if value < 1:
                raise InputError(option, "too few", "1 or more", value)
        if not 1 < self.alpha_ratio < np.inf:
            raise InputError(
                "--alpha-ratio",
                "the alpha grid would not fall to a positive alpha",
                "more than 1, and finite",
                self.alpha_ratio,
                "Pass 30.",
            )
        if not all(np.isfinite(alpha) and alpha > 0 for alpha in self.alpha_grid):
            raise InputError(
                "--alpha-grid",
                "not a positive grid",
                expected="positive numbers",
                got=",".join(map(str, self.alpha_grid)),
                fix="Remove what is zero, negative or not a number.",
            )
        if not 0 < self.tol < 1:
            raise InputError("--tol", "out of range", "between 0 and 1, say 1e-6", self.tol)
        if self.rule not in RULES:
            raise InputError("--rule", "unknown", " or ".join(RULES), self.rule)
        if self.stability < 0:
            raise InputError("--stability", "negative", "0 or more", self.stability)
        if not 0 <= self.min_stability <= 1:
            raise InputError("--min-stability", "no share", "0 to 1", self.min_stability)
        if not 0 <= self.early_stop < np.inf:
            raise InputError(
                "--early-stop", "no share", "0 or more, and finite", self.early_stop, "Pass 0.01."
            )
        if self.early_stop and self.engine not in ("newton", "auto"):
            raise InputError(
                "--early-stop",
                "only the newton engine solves folds side by side",
                got=f"--engine {self.engine}",
                fix="Pass --engine newton, or leave it out.",
            )
        refused = {
            f"--engine {self.engine}": self.engine != "newton",
            "--stability": self.stability > 0,
            "--early-stop": self.early_stop > 0,
        }
        if self.multitask and any(refused.values()):
            raise InputError(
                "--multitask",
                "does not go with",
                got=", ".join(option for option, given in refused.items() if given),
                fix="Leave that out: several targets at once are solved whole, by newton.",
            )
        if self.min_stability and not self.stability:
            raise InputError(
                "--min-stability",
                "nothing to judge by",
                fix="Pass --stability 20 (or more halves) with it.",
            )

    @property
    def engines(self) -> tuple[str, ...]:
        """The engines that share the grid, or the only one."""
        return tuple(name.strip() for name in self.engine.split(","))

    def _check_engines(self) -> None:
        known = (*ENGINES, *DEVICE_ENGINES)
        if self.engine == AUTO:
            return
        if unknown := [name for name in self.engines if name not in known]:
            raise InputError("--engine", "unknown", " or ".join((*known, AUTO)), unknown[0])
        if len(self.engines) == 1:
            return
        if "torch" in self.engines:
            raise InputError(
                "--engine",
                "which device is torch to share the work from",
                expected="torch:cuda or torch:mps",
                got=self.engine,
                fix="Name one.",
            )
        if len({device_of(name) for name in self.engines}) < len(self.engines):
            raise InputError(
                "--engine",
                "two engines for one device",
                expected="one for the cores, and one for each kind of device",
                got=self.engine,
                fix="Leave one of them out.",
            )

    def grid(self, alpha_max: float, largest: float) -> FloatArray:
        """Return the decreasing alphas of a target, one grid for all its folds.

        It ends at ``alpha_max / alpha_ratio``, with ``alpha_max`` of all rows, and starts at the
        ``largest`` alpha_max of any fold, so that the empty model is a candidate everywhere: a fold
        has fewer rows, and its alpha_max is higher for noise alone.

        Raises
        ------
        InputError
            When alpha_max is zero, but for rounding: every column is constant.
        """
        if self.alpha_grid:
            return np.unique(np.array(self.alpha_grid))[::-1].copy()
        if alpha_max < _NO_CORRELATION:
            raise InputError(
                "--news",
                "no n-gram varies with the target",
                fix="Lower --min-df, raise --max-df, or give more texts.",
            )
        if self.alphas == 1:
            return np.array([alpha_max / self.alpha_ratio])
        return np.geomspace(largest, alpha_max / self.alpha_ratio, self.alphas)


def plan_units(grids: Sequence[FloatArray], n_folds: int, config: PathConfig) -> list[Unit]:
    """Cut every (target, fold) path into stretches, each warm-started by the one before.

    Row ``n_folds`` of the roles is all rows: its path holds the final dictionary's solution.
    """
    units = []
    if config.early_stop:
        return _side_by_side(grids, config)
    if config.engine in DEVICE_ENGINES:
        return _as_batches(grids, config)
    for target, grid in enumerate(grids):
        for fold in range(n_folds + 1):
            for start in range(0, grid.size, config.stretch):
                units.append(
                    Unit(
                        key=unit_key(target, fold, start),
                        payload={
                            "target": target,
                            "fold": fold,
                            "alphas": grid[start : start + config.stretch],
                            "tol": config.tol,
                        },
                        after=unit_key(target, fold, start - config.stretch) if start else None,
                        cost=_cost(grid, start, config.stretch),
                    )
                )
    return units


def _side_by_side(grids: Sequence[FloatArray], config: PathConfig) -> list[Unit]:
    """Plan a chain of stretches a target, each on all folds."""
    return [
        Unit(
            key=folds_key(target, start),
            payload={
                "target": target,
                "alphas": grid[start : start + config.stretch],
                "tol": config.tol,
                "margin": config.early_stop,
            },
            after=folds_key(target, start - config.stretch) if start else None,
            cost=_cost(grid, start, config.stretch),
        )
        for target, grid in enumerate(grids)
        for start in range(0, grid.size, config.stretch)
    ]


def _cost(grid: FloatArray, start: int, stretch: int) -> float:
    """Guess the work of a stretch: the seconds of a solution grow about as 1 / alpha."""
    alphas = np.maximum(grid[start : start + stretch], grid[0] / _LARGEST_RATIO)
    return float(np.sum(grid[0] / alphas))


def _as_batches(grids: Sequence[FloatArray], config: PathConfig) -> list[Unit]:
    """Plan one chain of stretches, each of all targets and folds: a batch fills a device."""
    longest = max(grid.size for grid in grids)
    return [
        Unit(
            key=f"all-a{start:04d}",
            payload={
                "alphas": [grid[start : start + config.stretch] for grid in grids],
                "tol": config.tol,
            },
            after=f"all-a{start - config.stretch:04d}" if start else None,
        )
        for start in range(0, longest, config.stretch)
    ]


def by_cell(results: Results, n_targets: int, n_folds: int) -> Results:
    """Return results of batches as those of single targets and folds, under their `unit_key`."""
    single: dict[str, Mapping[str, np.ndarray]] = {}
    for key, result in results.items():
        start = int(key.rpartition("-a")[2])
        for target, fold in itertools.product(range(n_targets), range(n_folds + 1)):
            single[unit_key(target, fold, start)] = cell_result(result, target, fold)
    return single


def folds_key(target: int, start: int) -> str:
    """Return the name of a unit on all folds: target number, first alpha."""
    return f"t{target:02d}-folds-a{start:04d}"


def by_fold(results: Results, n_folds: int) -> Results:
    """Return results on all folds as those of single folds, under their `unit_key`."""
    single: dict[str, Mapping[str, np.ndarray]] = {}
    for key, result in results.items():
        target, _, start = key.split("-")
        for fold in range(n_folds + 1):
            own = fold_result(result, fold)
            single[unit_key(int(target[1:]), fold, int(start[1:]))] = own
    return single


def solved(results: Results, grids: Sequence[FloatArray]) -> list[FloatArray]:
    """Return the alphas of each target that were solved: all, or those before an early stop."""
    return [grid[: joined(results, target, 0, "alphas").size] for target, grid in enumerate(grids)]


def unit_key(target: int, fold: int, start: int) -> str:
    """Return the name of a unit: target number, row of the roles, first alpha."""
    return f"t{target:02d}-f{fold:03d}-a{start:04d}"


def path_table(results: Results, names: Sequence[str], n_folds: int) -> pa.Table:
    """Return a row per target, fold and alpha."""
    columns: dict[str, list] = {name: [] for name in (*_PATH_COLUMNS, "engine")}
    for key in sorted(results):
        target, fold, _ = _parsed(key)
        result = results[key]
        size = result["alphas"].size
        columns["target"] += [names[target]] * size
        columns["fold"] += [ALL_ROWS if fold == n_folds else fold] * size
        columns["engine"] += [str(result["engine"])] * size
        for column, source in _PATH_COLUMNS.items():
            if source:
                columns[column] += result[source].tolist()
    return pa.table({name: pa.array(values) for name, values in columns.items()})


def units_by_engine(results: Results) -> dict[str, int]:
    """Return how many stretches of a target and fold each engine solved, by name."""
    return dict(sorted(Counter(str(result["engine"]) for result in results.values()).items()))


_PATH_COLUMNS = {
    "target": "",
    "fold": "",
    "alpha": "alphas",
    "gap": "gaps",
    "nonzeros": "nonzeros",
    "n_iter": "n_iter",
    "seconds": "seconds",
    "train_mse": "train_mse",
    "validation_mse": "validation_mse",
}


def joined(results: Results, target: int, fold: int, source: str) -> np.ndarray:
    """Return ``source`` along the whole path of one target and fold."""
    keys = [key for key in sorted(results) if _parsed(key)[:2] == (target, fold)]
    return np.concatenate([results[key][source] for key in keys])


@dataclass(frozen=True)
class Choice:
    """Which alpha of the grid was chosen, and its mean validation error with standard error."""

    index: int
    mse: float
    standard_error: float


def choose_alpha(validation_mse: FloatArray, rule: str) -> Choice:
    """Choose from validation errors (n_folds, n_alphas), alphas decreasing.

    ``min``: the lowest mean error, the larger alpha on ties. ``1se``: the largest alpha whose mean
    error is within one standard error of the lowest (Hastie, Tibshirani, Friedman, ESL, 7.10).
    """
    mean = validation_mse.mean(axis=0)
    error = validation_mse.std(axis=0, ddof=1) / np.sqrt(validation_mse.shape[0])
    index = int(np.argmin(mean))
    if rule == "1se":
        index = int(np.argmax(mean <= mean[index] + error[index]))
    return Choice(index, float(mean[index]), float(error[index]))


def solution_at(
    results: Results, target: int, fold: int, index: int, stretch: int
) -> tuple[npt.NDArray[np.int64], FloatArray, float, float]:
    """Return (support, coefficients, intercept, gap) at alpha number ``index``."""
    result = results[unit_key(target, fold, index - index % stretch)]
    at = index % stretch
    span = slice(int(result["indptr"][at]), int(result["indptr"][at + 1]))
    return (
        result["indices"][span].astype(np.int64),
        result["data"][span],
        float(result["intercepts"][at]),
        float(result["gaps"][at]),
    )


def _parsed(key: str) -> tuple[int, int, int]:
    target, fold, start = key.split("-")
    return int(target[1:]), int(fold[1:]), int(start[1:])
