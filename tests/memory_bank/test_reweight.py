"""The panel score against equations 6 and 7, taken literally."""

from itertools import pairwise

import numpy as np
import pytest

from actors.memory_bank.index import MemoryBank
from actors.memory_bank.reweight import panel_scores
from cluster.errors import InputError


def literal(bag, bank, b):
    """Equations 6 and 7, one panel, in float64."""
    apart = np.linalg.norm(bag[:, None].astype(np.float64) - bank[None], axis=2)
    test = int(apart.min(axis=1).argmax())
    star = int(apart[test].argmin())
    s_star = apart[test, star]
    around = np.argsort(np.linalg.norm(bank.astype(np.float64) - bank[star], axis=1))[:b]
    weight = 1 - np.exp(s_star) / np.exp(apart[test, around]).sum() if b > 1 else 1.0
    return weight * s_star


@pytest.fixture(scope="module")
def rows():
    return np.random.default_rng(1).standard_normal((400, 6)).astype(np.float32)


@pytest.fixture(scope="module")
def bank(rows):
    return MemoryBank(rows)


@pytest.mark.parametrize("b", [1, 2, 9, 400])
def test_scores_are_those_of_the_paper(bank, rows, b):
    patches = 2 * np.random.default_rng(2).standard_normal((30, 7, 6)).astype(np.float32)
    expected = [literal(bag, rows, b) for bag in patches]
    np.testing.assert_allclose(panel_scores(patches, bank, b), expected, rtol=1e-4)


def test_panels_may_have_bags_of_several_sizes(bank, rows):
    patches = 2 * np.random.default_rng(3).standard_normal((20, 6)).astype(np.float32)
    offsets = np.array([0, 1, 8, 10, 20])
    expected = [literal(patches[start:end], rows, 5) for start, end in pairwise(offsets)]
    np.testing.assert_allclose(panel_scores(patches, bank, 5, offsets), expected, rtol=1e-4)


def test_the_first_of_equally_far_patches_is_weighed(rows):
    # The second patch is as far from its row as the first from its own, but its row is lonely.
    rows = np.array([[0, 0], [0, 1], [50, 0]], dtype=np.float32)
    patches = np.array([[[-3, 0], [53, 0]]], dtype=np.float32)
    found = panel_scores(patches, MemoryBank(rows), 2)
    assert found[0] == pytest.approx(3 * (1 - np.exp(3) / (np.exp(3) + np.exp(10**0.5))))


def test_scores_stay_finite_when_patches_are_far(bank):
    # exp(1000) is not a float.
    found = panel_scores(np.full((2, 3, 6), 1000.0, dtype=np.float32), bank, 9)
    assert np.isfinite(found).all()
    assert (found > 0).all()


def test_a_panel_without_patches_and_too_wide_a_neighbourhood_are_refused(bank):
    patches = np.ones((3, 6), dtype=np.float32)
    with pytest.raises(InputError, match="panel 1 has none"):
        panel_scores(patches, bank, 3, np.array([0, 1, 1, 3]))
    with pytest.raises(InputError, match=r"expected 1 to 400.*got 401"):
        panel_scores(patches[None], bank, 401)
