"""The proof that n-grams left out of the matrix cannot enter at any alpha, fold or target."""

from collections.abc import Iterator, Sequence

import numpy as np
import scipy.sparse as sp

from actors.lasso.safe_rules import Answers, answers_of, excluded, reach
from cluster.nodes import Cluster
from cluster.storage import Store
from pipelines.news.config import NewsConfig
from pipelines.news.early_drop import Aside, BoolArray, FloatArray, sum_blocks, with_twins
from pipelines.news.path import Results, solved, unit_key
from pipelines.news.prepare import NewsProblem, say, with_ngrams
from pipelines.news.solve import alpha_grids, on_fold, solve_grid

# Solved again with what the proof could not exclude so often; then with every column.
MAX_ROUNDS = 3


def solve_and_prove(
    problem: NewsProblem, config: NewsConfig, cluster: Cluster, run: Store
) -> tuple[NewsProblem, list[FloatArray], Results]:
    """Solve the grid, and prove that what was left out cannot enter any of its answers.

    What could enter is taken into the matrix and the grid solved again. Returns the problem that
    the answers belong to, its grids and its answers.
    """
    for number in range(MAX_ROUNDS + 1):
        grids = alpha_grids(problem, config.path)
        store = run / "work" / ("path" if number == 0 else f"path-{number}")
        results = solve_grid(problem, grids, config.path, cluster, store, config.run.workers)
        grids = solved(results, grids)
        aside = problem.aside
        if aside is None:
            return problem, grids, results
        enters = may_enter(aside, problem, grids, results, config.path.stretch, cluster, run)
        n_aside, n_enters = np.count_nonzero(~aside.kept), np.count_nonzero(enters)
        if not n_enters:
            say(f"proved: none of the {n_aside:,} dropped n-grams can enter at any alpha")
            return problem, grids, results
        say(f"{n_enters:,} of the {n_aside:,} dropped n-grams may enter: solving with them")
        kept = with_twins(aside.kept | enters, aside.patterns)
        problem = with_ngrams(problem, kept | (number + 1 >= MAX_ROUNDS))
    return problem, grids, results


def may_enter(
    aside: Aside,
    problem: NewsProblem,
    grids: Sequence[FloatArray],
    results: Results,
    stretch: int,
    cluster: Cluster,
    run: Store,
) -> BoolArray:
    """Return which n-grams left out (n_ngrams,) cannot be proved to be zero at every optimum.

    One sum over the blocks bounds all of them; the few it leaves in doubt are assembled and held
    against every answer.
    """
    bound = reach(problem.Y.shape[0], _answers(problem, grids, results, stretch))
    no_codes = np.zeros((problem.Y.shape[0], 0), dtype=np.uint64)
    sums = sum_blocks(aside.rows, bound.rows[:, None], no_codes, cluster, run / "work")
    enters = ~bound.excludes(sums.products[:, 0] / aside.scale, aside.norms) & ~aside.kept
    if enters.any():
        doubtful = aside.rows.design(enters).X
        enters[enters] = ~excluded(doubtful, _answers(problem, grids, results, stretch))
    return enters


def _answers(
    problem: NewsProblem, grids: Sequence[FloatArray], results: Results, stretch: int
) -> Iterator[Answers]:
    """Read the answers of each target and fold, a stretch at a time."""
    p = problem.X.shape[1]
    for target, grid in enumerate(grids):
        for fold in range(len(problem.roles)):
            lasso = on_fold(problem, target, fold)
            for start in range(0, grid.size, stretch):
                part = results[unit_key(target, fold, start)]
                parts = (part["data"], part["indices"], part["indptr"])
                coefs = sp.csc_matrix(parts, shape=(p, part["alphas"].size))
                yield answers_of(lasso, coefs, part["gaps"], part["alphas"])
