"""The search for the tolerance that just meets a gap, on solvers whose law is known."""

import pytest

from pipelines.bench.measure import Try
from pipelines.bench.search import MOST_TRIES, best_try, next_tol


def search(gap_of, asked=1e-6, **options):
    """Try tolerances until the search has enough; ``gap_of`` maps a tolerance to gap or status."""
    tries = []
    while (tol := next_tol(tries, asked, **options)) is not None:
        found = gap_of(tol)
        if isinstance(found, str):
            tries.append(Try(tol, found, 1.0, 1.0, reason="why"))
        else:
            tries.append(Try(tol, "solved", 1.0, 1.0, gap=found))
        assert len(tries) <= 20
    return tries


def test_gap_solver_is_tried_on_the_curve_then_at_the_gap_asked():
    tries = search(lambda tol: 0.9 * tol, stops_on_gap=True, curve=(1e-2, 1e-4, 1e-8))
    assert [t.tol for t in tries] == [1e-2, 1e-4, 1e-6]
    assert best_try(tries, 1e-6, stops_on_gap=True) == tries[-1]


def test_gap_solver_is_tightened_when_our_checker_disagrees():
    tries = search(lambda tol: 3 * tol, stops_on_gap=True)
    assert [t.tol for t in tries] == pytest.approx([1e-6, 1e-7])


def test_gap_solver_that_never_meets_it_is_given_up():
    tries = search(lambda tol: 1e-3, stops_on_gap=True)
    assert len(tries) == 3
    assert best_try(tries, 1e-6, stops_on_gap=True) is None


def test_luck_of_a_looser_tol_does_not_count_for_a_gap_solver():
    tries = search(lambda tol: 1e-9, stops_on_gap=True, curve=(1e-2,))
    assert best_try(tries, 1e-6, stops_on_gap=True).tol == 1e-6


def test_other_solver_is_tightened_to_what_just_meets_the_gap():
    tries = search(lambda tol: tol**1.5, stops_on_gap=False, smallest_alpha=0.1)
    # One step of ten shows the law; the next goes all the way.
    assert [t.tol for t in tries[:2]] == pytest.approx([1e-2, 1e-3])
    assert len(tries) == 3
    assert tries[-1].gap == pytest.approx(0.7e-6)
    assert best_try(tries, 1e-6, stops_on_gap=False) == tries[-1]


def cliff(tol):
    """Hardly fall, then fall far: a step of ten overshoots."""
    return 1e-3 * tol**0.1 if tol > 5e-4 else tol**2


def test_other_solver_is_loosened_when_it_overshoots():
    tries = search(cliff, stops_on_gap=False, smallest_alpha=1e-2)
    assert [t.tol for t in tries[:2]] == pytest.approx([1e-3, 1e-4])
    assert best_try(tries, 1e-6, stops_on_gap=False) == tries[2]
    assert 1e-4 < tries[2].tol < 5e-4


def test_search_ends_when_a_solve_times_out():
    tries = search(
        lambda tol: tol if tol > 1e-4 else "timed out", stops_on_gap=False, smallest_alpha=1e-1
    )
    assert tries[-1].status == "timed out"
    assert [t.status for t in tries].count("timed out") == 1
    assert best_try(tries, 1e-6, stops_on_gap=False) is None


def test_answer_stays_when_the_loosened_solve_fails():
    tries = search(
        lambda tol: "failed" if 1.1e-4 < tol < 5e-4 else cliff(tol),
        stops_on_gap=False,
        smallest_alpha=1e-2,
    )
    assert [t.status for t in tries] == ["solved", "solved", "failed"]
    assert best_try(tries, 1e-6, stops_on_gap=False) == tries[1]


def test_search_of_a_solver_that_never_gets_there_ends():
    tries = search(lambda tol: 1e-3, stops_on_gap=False)
    assert len(tries) == MOST_TRIES
