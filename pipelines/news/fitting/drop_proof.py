"""The proof that n-grams left out of the matrix cannot enter at any alpha, fold or target."""

from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np

from actors.lasso.engines import DEVICE_ENGINES
from actors.lasso.safe_rules import Answers, Reach, answers_of, excluded, joint_reach
from actors.lasso.unit import coefficients
from cluster.nodes import Cluster
from cluster.storage import Store
from pipelines.news.config import NewsConfig
from pipelines.news.design.early_drop import (
    Aside,
    BoolArray,
    FloatArray,
    IntArray,
    sum_blocks,
    with_twins,
)
from pipelines.news.fitting.path import Results, solved, unit_key
from pipelines.news.fitting.solve import alpha_grids, on_fold, solve_grid
from pipelines.news.prepare import say, with_ngrams
from pipelines.news.problem import NewsProblem

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
    unproved: Collection[Cell] = list(np.ndindex(len(grids), len(problem.roles)))
    for number in range(1, MAX_ROUNDS + 1):
        aside, lengths = problem.aside, solved(results, grids)
        if aside is None:
            break
        enters, cells = may_enter(aside, problem, lengths, results, stretch, unproved, cluster, run)
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
        unproved = unproved if again is None else again
    return problem, solved(results, grids), results


def may_enter(
    aside: Aside,
    problem: NewsProblem,
    grids: Sequence[FloatArray],
    results: Results,
    stretch: int,
    cells: Collection[Cell],
    cluster: Cluster,
    run: Store,
) -> tuple[BoolArray, set[Cell]]:
    """Return which n-grams left out (n_ngrams,) cannot be proved to be zero at every optimum.

    One sum over the blocks bounds all of them; the few it leaves in doubt are assembled and held
    against each unit's own bound, and where that does not do, against its answers. The second part
    names those of the fits ``cells`` that one of them may enter.
    """
    bounds = dict(_reaches(grids, results, stretch, cells))
    bound = joint_reach(problem.Y.shape[0], bounds.values())
    no_codes = np.zeros((problem.Y.shape[0], 0), dtype=np.uint64)
    sums = sum_blocks(
        aside.rows, bound.rows[:, None].astype(np.float64), no_codes, cluster, run / "work"
    )
    doubtful = ~bound.excludes(sums.products[:, 0] / aside.scale, aside.norms) & ~aside.kept
    enters, fits = np.zeros_like(doubtful), set()
    if doubtful.any():
        X, places = aside.rows.design(doubtful).X, np.flatnonzero(doubtful)
        norms = aside.norms[doubtful]
        for (cell, start), own in bounds.items():
            left = np.flatnonzero(~own.excludes(abs(X).T @ own.rows, norms))
            if left.size:
                answers = _answers(problem, cell, results[unit_key(*cell, start)])
                left = left[~excluded(X[:, left], [answers])]
            enters[places[left]] = True
            fits |= {cell} if left.size else set()
    return enters, fits


def _reaches(
    grids: Sequence[FloatArray], results: Results, stretch: int, cells: Collection[Cell]
) -> Iterator[tuple[tuple[Cell, int], Reach]]:
    """Read what each unit of ``cells`` says of columns outside; its first alpha names it."""
    for target, fold in sorted(cells):
        for start in range(0, grids[target].size, stretch):
            part = results[unit_key(target, fold, start)]
            yield ((target, fold), start), Reach(part["reach"], float(part["radius"]))


def _answers(problem: NewsProblem, cell: Cell, part: Mapping[str, np.ndarray]) -> Answers:
    coefs = coefficients(part, problem.X.shape[1])
    return answers_of(on_fold(problem, *cell), coefs, part["gaps"], part["alphas"])


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
