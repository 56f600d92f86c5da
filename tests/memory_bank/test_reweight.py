"""The panel score against equations 6 and 7, taken literally."""

from itertools import pairwise

import numpy as np
import pytest

from actors.memory_bank.index import MemoryBank
from actors.memory_bank.reweight import neighbourhoods, panel_scores
from cluster.errors import InputError


def literal(bag, bank, b):
    """Equations 6 and 7, one panel, in float64."""
    apart = np.linalg.norm(bag[:, None].astype(np.float64) - bank[None], axis=2)
    test = int(apart.min(axis=1).argmax())
    star = int(apart[test].argmin())
    s_star = apart[test, star]
    around = np.argsort(np.linalg.norm(bank.astype(np.float64) - bank[star], axis=1))[:b]
    weight = 1 - np.exp(s_star) / np.exp(apart[test, around]).sum() if b > 1 else 1.0
    return weight * s_star, s_star, test


@pytest.fixture(scope="module")
def bank():
    return MemoryBank(np.random.default_rng(1).standard_normal((400, 6)).astype(np.float32))


def scored(bank, patches, b, offsets=None):
    distance, index = bank.search(patches.reshape(-1, patches.shape[-1]), 1)
    shape = patches.shape[:-1]
    return panel_scores(
        patches,
        distance.reshape(shape),
        index.reshape(shape),
        bank.vectors(),
        neighbourhoods(bank, b),
        offsets,
    )


@pytest.mark.parametrize("b", [1, 2, 9, 400])
def test_scores_are_those_of_the_paper(bank, b):
    patches = 2 * np.random.default_rng(2).standard_normal((30, 7, 6)).astype(np.float32)
    found = scored(bank, patches, b)
    expected = [literal(bag, bank.vectors(), b) for bag in patches]
    np.testing.assert_allclose(found.score, [s for s, _, _ in expected], rtol=1e-4)
    np.testing.assert_allclose(found.distance, [s for _, s, _ in expected], rtol=1e-5)
    np.testing.assert_array_equal(found.patch, [p for _, _, p in expected])


def test_panels_may_have_bags_of_several_sizes(bank):
    patches = 2 * np.random.default_rng(3).standard_normal((20, 6)).astype(np.float32)
    offsets = np.array([0, 1, 8, 10, 20])
    found = scored(bank, patches, 5, offsets)
    for panel, (start, end) in enumerate(pairwise(offsets)):
        score, _, patch = literal(patches[start:end], bank.vectors(), 5)
        assert found.score[panel] == pytest.approx(score, rel=1e-4)
        assert found.patch[panel] == patch


def test_scores_stay_finite_when_patches_are_far(bank):
    # exp(1000) is not a float.
    patches = np.full((2, 3, 6), 1000.0, dtype=np.float32)
    found = scored(bank, patches, 9)
    assert np.isfinite(found.score).all()
    assert (found.score > 0).all()
    assert (found.score < found.distance).all()
    np.testing.assert_array_equal(found.patch, [0, 0])


def test_a_panel_without_patches_and_too_wide_a_neighbourhood_are_refused(bank):
    patches = np.ones((3, 6), dtype=np.float32)
    with pytest.raises(InputError, match="panel 1 has none"):
        scored(bank, patches, 3, np.array([0, 1, 1, 3]))
    with pytest.raises(InputError, match=r"expected 1 to 400.*got 401"):
        neighbourhoods(bank, 401)
