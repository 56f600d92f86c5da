"""The proof that n-grams left out of the matrix cannot enter at any alpha, fold or target."""

from collections.abc import Iterator, Sequence

import numpy as np
import scipy.sparse as sp

from actors.lasso.engines import DEVICE_ENGINES
from actors.lasso.safe_rules import Answers, answers_of, excluded, reach
from cluster.nodes import Cluster
from cluster.storage import Store
from pipelines.news.config import NewsConfig
from pipelines.news.early_drop import (
    Aside,
    BoolArray,
    FloatArray,
    IntArray,
    sum_blocks,
    with_twins,
)
from pipelines.news.path import Results, solved, unit_key
from pipelines.news.prepare import NewsProblem, say, with_ngrams
from pipelines.news.solve import alpha_grids, on_fold, solve_grid

# Solved again with what the proof could not exclude so often; then with every column.
MAX_ROUNDS = 3

Cell = tuple[int, int]  # target and fold


def solve_and_prove(
    problem: NewsProblem, config: NewsConfig, cluster: Cluster, run: Store
) -> tuple[NewsProblem, list[FloatArray], Results]:
    """Solve the grid, and prove that what was left out cannot enter any of its answers.

    What could enter is taken into the matrix, and the folds and targets that it could enter are
    solved again: the answers of the others are proved to stay as they are. Returns the problem that
    the answers belong to, its grids and its answers.
    """
    path, stretch = config.path, config.path.stretch
    grids = alpha_grids(problem, path)
    results = solve_grid(problem, grids, path, cluster, run / "work" / "path", config.run.workers)
    for number in range(1, MAX_ROUNDS + 1):
        aside, lengths = problem.aside, solved(results, grids)
        if aside is None:
            break
        enters, cells = may_enter(aside, problem, lengths, results, stretch, cluster, run)
        n_aside, n_enters = np.count_nonzero(~aside.kept), np.count_nonzero(enters)
        if not n_enters:
            say(f"proved: none of the {n_aside:,} dropped n-grams can enter at any alpha")
            break
        n_cells = len(grids) * len(problem.roles)
        say(
            f"{n_enters:,} of the {n_aside:,} dropped n-grams may enter, in {len(cells)} of "
            f"{n_cells} fits: solving with them"
        )
        before, whole = problem, number == MAX_ROUNDS
        problem = with_ngrams(problem, with_twins(aside.kept | enters, aside.patterns) | whole)
        again = None if whole or path.early_stop or path.engine in DEVICE_ENGINES else cells
        store = run / "work" / f"path-{number}"
        fresh = solve_grid(problem, grids, path, cluster, store, config.run.workers, again)
        results = {**_carried(results, before, problem), **fresh} if again is not None else fresh
    return problem, solved(results, grids), results


def may_enter(
    aside: Aside,
    problem: NewsProblem,
    grids: Sequence[FloatArray],
    results: Results,
    stretch: int,
    cluster: Cluster,
    run: Store,
) -> tuple[BoolArray, set[Cell]]:
    """Return which n-grams left out (n_ngrams,) cannot be proved to be zero at every optimum.

    One sum over the blocks bounds all of them; the few it leaves in doubt are assembled and held
    against every answer. The second part names the fits that one of them may enter.
    """
    bound = reach(problem.Y.shape[0], (a for _, a in _answers(problem, grids, results, stretch)))
    no_codes = np.zeros((problem.Y.shape[0], 0), dtype=np.uint64)
    sums = sum_blocks(aside.rows, bound.rows[:, None], no_codes, cluster, run / "work")
    doubtful = ~bound.excludes(sums.products[:, 0] / aside.scale, aside.norms) & ~aside.kept
    enters, cells = np.zeros_like(doubtful), set()
    if doubtful.any():
        X, places = aside.rows.design(doubtful).X, np.flatnonzero(doubtful)
        for cell, answers in _answers(problem, grids, results, stretch):
            own = places[~excluded(X, [answers])]
            enters[own] = True
            cells |= {cell} if own.size else set()
    return enters, cells


def _answers(
    problem: NewsProblem, grids: Sequence[FloatArray], results: Results, stretch: int
) -> Iterator[tuple[Cell, Answers]]:
    """Read the answers of each target and fold, a stretch at a time."""
    p = problem.X.shape[1]
    for target, grid in enumerate(grids):
        for fold in range(len(problem.roles)):
            lasso = on_fold(problem, target, fold)
            for start in range(0, grid.size, stretch):
                part = results[unit_key(target, fold, start)]
                parts = (part["data"], part["indices"], part["indptr"])
                coefs = sp.csc_matrix(parts, shape=(p, part["alphas"].size))
                yield (target, fold), answers_of(lasso, coefs, part["gaps"], part["alphas"])


def _carried(results: Results, before: NewsProblem, after: NewsProblem) -> Results:
    """Return results with the numbers that their columns have in the matrix of ``after``.

    Twins come and stay together, so every solved column is still one.
    """
    place = np.searchsorted(_identities(after), _identities(before))
    return {
        key: {**result, "indices": place[result["indices"]].astype(result["indices"].dtype)}
        for key, result in results.items()
    }


def _identities(problem: NewsProblem) -> IntArray:
    """Number the solved columns, rising, alike in every matrix of these n-grams."""
    columns = problem.columns
    of_words = columns.solved[columns.solved >= 0]
    beyond = columns.known.columns[-1] + 1 + np.arange(len(columns.features))
    return np.concatenate((columns.design.columns[of_words], beyond))
