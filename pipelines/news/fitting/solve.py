"""Solve the grid on the cluster, choose an alpha for each target, and read the answers."""

import itertools
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import scipy.sparse as sp

import actors.lasso
from actors.lasso.engines import DEVICE_ENGINES
from actors.lasso.problem import LassoProblem
from actors.lasso.unit import TRAIN, VALIDATION
from cluster.errors import InputError
from cluster.fingerprint import fingerprint
from cluster.nodes import Cluster
from cluster.storage import Store
from cluster.units import Unit, solve_units
from pipelines.news.design.naming import Naming
from pipelines.news.design.twins import Twins, find_twins, merge_weights
from pipelines.news.dictionary import Entries
from pipelines.news.fitting.engine import worker_kinds
from pipelines.news.fitting.folds import subsample_roles
from pipelines.news.fitting.metrics import OutOfFold
from pipelines.news.fitting.multitask import by_target, joint_grids, plan_joint_units
from pipelines.news.fitting.path import (
    Choice,
    PathConfig,
    Results,
    by_cell,
    by_fold,
    plan_units,
    solution_at,
)
from pipelines.news.problem import NewsProblem

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

# Along the way to a subsample's chosen alpha every so many alphas of the grid are solved.
SUBSAMPLE_STEP = 5
MIN_HALF = 10
# Words drawn in the report's path plot.
PATH_WORDS = 30


@dataclass(frozen=True, eq=False)
class Chosen:
    """The solution on all rows at the chosen alpha of one target.

    ``unstable`` words of it have been dropped; ``gap`` is that of the whole solution. ``twins``
    are solved columns that are one and the same on the rows where this target is defined: all
    their weight stands with the first choice among them.
    """

    choice: Choice
    alpha: float
    support: IntArray
    values: FloatArray
    intercept: float
    gap: float
    twins: dict[int, IntArray]
    unstable: int = 0


def alpha_grids(problem: NewsProblem, config: PathConfig) -> list[FloatArray]:
    """Return the alphas of each target, one grid for all its folds."""
    if config.multitask:
        return joint_grids(problem, config)
    grids = []
    for target in range(problem.Y.shape[1]):
        highest = [on_fold(problem, target, fold).alpha_max() for fold in range(len(problem.roles))]
        grids.append(config.grid(highest[-1], max(highest)))
    return grids


def solve_grid(
    problem: NewsProblem,
    grids: Sequence[FloatArray],
    config: PathConfig,
    cluster: Cluster,
    store: Store,
    workers: int | None,
    cells: Collection[tuple[int, int]] | None = None,
) -> Results:
    """Solve every target, fold and alpha; finished units in ``store`` are reused.

    ``cells`` limits it to these pairs of target and fold, where units are of single folds.
    """
    plan = plan_joint_units if config.multitask else plan_units
    units = plan(grids, problem.n_folds, config)
    if problem.aside is not None:
        units = [replace(u, payload={**u.payload, "reach": True}) for u in units]
    if cells is not None:
        units = [u for u in units if (u.payload["target"], u.payload["fold"]) in cells]
    results = _solve(problem, problem.roles, units, config, cluster, store, workers, "solve path")
    if config.multitask:
        return by_target(results)
    if config.engine in DEVICE_ENGINES:
        return by_cell(results, len(grids), problem.n_folds)
    return by_fold(results, problem.n_folds) if config.early_stop else results


def select_stability(
    problem: NewsProblem,
    grids: Sequence[FloatArray],
    chosen: Sequence[Chosen],
    config: PathConfig,
    seed: int,
    cluster: Cluster,
    store: Store,
    workers: int | None,
) -> list[FloatArray]:
    """Return for each target the share of random halves that choose each word of the dictionary.

    References
    ----------
    Meinshausen, Bühlmann, "Stability selection", JRSS-B 72(4), 2010.
    """
    roles = subsample_roles(problem.Y.shape[0], problem.text_group, config.stability, seed)
    for half, y in itertools.product(roles, problem.Y.T):
        if np.count_nonzero((half == TRAIN) & np.isfinite(y)) < MIN_HALF:
            raise InputError(
                "--stability",
                "half of the observations is too few",
                expected=f"{MIN_HALF} or more with a target",
                got=np.count_nonzero((half == TRAIN) & np.isfinite(y)),
                fix="Leave --stability out, or give more news.",
            )
    units = []
    for target, (grid, answer) in enumerate(zip(grids, chosen, strict=True)):
        index = answer.choice.index
        alphas = grid[index % SUBSAMPLE_STEP : index + 1 : SUBSAMPLE_STEP]
        for half in range(config.stability):
            payload = {"target": target, "fold": half, "alphas": alphas, "tol": config.tol}
            units.append(Unit(key=f"t{target:02d}-h{half:03d}", payload=payload))
    results = _solve(problem, roles, units, config, cluster, store, workers, "stability")
    shares = []
    for target, answer in enumerate(chosen):
        hits = np.zeros(answer.support.size)
        for half in range(config.stability):
            result = results[f"t{target:02d}-h{half:03d}"]
            last = set(result["indices"][result["indptr"][-2] : result["indptr"][-1]].tolist())
            hits += [
                not last.isdisjoint((int(word), *answer.twins.get(int(word), ())))
                for word in answer.support
            ]
        shares.append(hits / config.stability)
    return shares


def keep_stable(
    problem: NewsProblem,
    chosen: Sequence[Chosen],
    stability: Sequence[FloatArray],
    threshold: float,
) -> tuple[list[Chosen], list[FloatArray]]:
    """Drop the words below ``threshold`` and make each intercept exact for those that stay."""
    kept, shares = [], []
    for target, (answer, share) in enumerate(zip(chosen, stability, strict=True)):
        stays = share >= threshold
        support, values = answer.support[stays], answer.values[stays]
        intercept = on_fold(problem, target, problem.n_folds).intercept(support, values)
        kept.append(
            replace(
                answer,
                support=support,
                values=values,
                intercept=intercept,
                unstable=int(np.count_nonzero(~stays)),
            )
        )
        shares.append(share[stays])
    return kept, shares


def refit(
    problem: NewsProblem,
    results: Results,
    grids: Sequence[FloatArray],
    choices: Sequence[Choice],
    stretch: int,
) -> list[Chosen]:
    """Read off the all-rows solution at each target's chosen alpha."""
    chosen = []
    for target, choice in enumerate(choices):
        support, values, intercept, gap = solution_at(
            results, target, problem.n_folds, choice.index, stretch
        )
        twins = twins_of_target(problem, target)
        support, values = merge_weights(twins, support, values)
        merged = twins.aliases_by_column
        aliases = {int(j): merged[int(j)] for j in support if int(j) in merged}
        alpha = float(grids[target][choice.index])
        chosen.append(Chosen(choice, alpha, support, values, intercept, gap, aliases))
    return chosen


def twins_of_target(problem: NewsProblem, target: int) -> Twins:
    """Find solved columns that differ only on rows where the target is undefined."""
    defined = np.isfinite(problem.Y[:, target])
    everyone = np.arange(problem.X.shape[1])
    if defined.all():
        return Twins(everyone, everyone, np.ones(everyone.size))
    return find_twins(problem.X[np.flatnonzero(defined)], problem.columns.preference)


def out_of_fold(
    problem: NewsProblem, results: Results, target: int, index: int, stretch: int
) -> OutOfFold:
    """Predict every validation row by the solution of its fold, at alpha number ``index``."""
    y = problem.Y[:, target]
    defined = np.isfinite(y)
    rows, predicted, baseline, wordless = [], [], [], []
    for fold in range(problem.n_folds):
        held_out = np.flatnonzero((problem.roles[fold] == VALIDATION) & defined)
        trained = (problem.roles[fold] == TRAIN) & defined
        support, values, intercept, _ = solution_at(results, target, fold, index, stretch)
        rows.append(held_out)
        predicted.append(problem.X[:, support][held_out] @ values + intercept)
        baseline.append(np.full(held_out.size, y[trained].mean()))
        wordless.append(np.full(held_out.size, intercept))
    row = np.concatenate(rows)
    return OutOfFold(
        row=row,
        session=problem.observations.session[row].astype(np.int64),
        ticker=problem.observations.ticker[row].astype(np.int64),
        actual=y[row],
        predicted=np.concatenate(predicted),
        baseline=np.concatenate(baseline),
        wordless=np.concatenate(wordless),
    )


def dictionary_entries(
    problem: NewsProblem,
    naming: Naming,
    target: int,
    chosen: Chosen,
    stability: FloatArray | None,
) -> Entries:
    """Name the chosen columns and give their weights per unit of the unscaled n-gram."""
    columns = problem.columns
    at = columns.solved[chosen.support]
    is_word = at >= 0
    words = np.where(is_word, at, 0)
    # A number entered as (value - mean) / std / sqrt(n); its weight is given per std.
    unit = np.where(is_word, columns.design.scale[words], np.sqrt(problem.Y.shape[0]))
    twins = [
        problem.columns.solved[chosen.twins.get(int(j), np.zeros(0, dtype=np.int64))]
        for j in chosen.support
    ]
    return Entries(
        target=problem.observations.target_names[target],
        ngrams=naming.names(at),
        coef=chosen.values / unit,
        df=np.where(is_word, columns.design.df[words], problem.Y.shape[0]),
        aliases=[
            own + naming.names(other) + [name for more in naming.aliases(other) for name in more]
            for own, other in zip(naming.aliases(at), twins, strict=True)
        ],
        stability=stability,
        gap=chosen.gap,
        columns=np.where(is_word, columns.design.columns[words], at),
    )


def coefficient_paths(
    problem: NewsProblem,
    naming: Naming,
    results: Results,
    grids: Sequence[FloatArray],
    chosen: Sequence[Chosen],
    stretch: int,
) -> pa.Table:
    """Return the all-rows path of each target's strongest words (target, ngram, alpha, coef)."""
    parts = []
    for target, answer in enumerate(chosen):
        strongest = answer.support[np.argsort(-np.abs(answer.values))[:PATH_WORDS]]
        names = naming.names(problem.columns.solved[strongest])
        title = problem.observations.target_names[target]
        for index, alpha in enumerate(grids[target]):
            support, values, _, _ = solution_at(results, target, problem.n_folds, index, stretch)
            _, at, found = np.intersect1d(strongest, support, return_indices=True)
            coef = np.zeros(strongest.size)
            coef[at] = values[found]
            parts.append(
                pa.table(
                    {
                        "target": pa.array([title] * len(names), pa.string()),
                        "ngram": pa.array(names, pa.string()),
                        "alpha": np.full(len(names), alpha),
                        "coef": coef,
                    }
                )
            )
    return pa.concat_tables(parts).combine_chunks()


def on_fold(problem: NewsProblem, target: int, fold: int) -> LassoProblem:
    """Return one target on one fold; the last fold is all rows."""
    y = problem.Y[:, target]
    return LassoProblem(problem.X, y, (problem.roles[fold] == TRAIN) & np.isfinite(y))


def _solve(
    news: NewsProblem,
    roles: npt.NDArray[np.int8],
    units: Sequence[Unit],
    config: PathConfig,
    cluster: Cluster,
    store: Store,
    workers: int | None,
    label: str,
) -> Results:
    # Of several engines any may have finished a unit, in this run or in one on other machines: its
    # certificate says how near the optimum it is. The bytes of one engine are its own.
    engine = config.engine if len(config.engines) == 1 else "several"
    key = fingerprint(
        matrix_digest(news.X), news.Y, roles, engine, config.tol,
        [[u.key, list(u.payload["alphas"])] for u in units], solver_code(),
    )  # fmt: skip
    return solve_units(
        cluster,
        worker_kinds(config.engines, news.X, news.Y, roles, cluster, workers),
        units,
        store,
        fingerprint=key,
        label=label,
    )


def solver_code() -> str:
    """Fingerprint the solver's sources: other code, other results."""
    folder = Path(actors.lasso.__path__[0])
    return fingerprint([file.read_bytes() for file in sorted(folder.glob("*.py"))])


def matrix_digest(X: sp.csc_matrix) -> str:
    """Fingerprint a sparse matrix by its arrays."""
    return fingerprint(X.data, X.indices, X.indptr, X.shape)
