import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.fpcb.population import SHARES, SPLITS, apportion, assign, class_counts
from pipelines.fpcb.scenarios import MIXES, NAMES


@given(
    total=st.integers(0, 10**7),
    weights=st.lists(st.integers(0, 10**5), min_size=1, max_size=9).filter(any),
)
def test_apportion_adds_up_and_stays_within_one_of_each_quota(total, weights):
    parts = apportion(total, weights)
    quota = total * np.array(weights) / sum(weights)
    assert parts.sum() == total
    assert np.all(np.abs(parts - quota) < 1 + 1e-6)
    assert np.all(parts[np.array(weights) == 0] == 0)


@pytest.mark.parametrize(("mix", "panels"), [("1k", 1_180), ("10k", 9_500), ("100k", 100_000)])
def test_class_counts_are_the_tables_at_its_own_sizes(mix, panels):
    assert tuple(class_counts(panels, mix)) == MIXES[mix]


def test_class_counts_keep_the_proportions_at_other_sizes():
    assert dict(zip(NAMES, class_counts(1_000), strict=False)) == {
        "normal": 750,
        "light_distortion": 50,
        "crack": 50,
        "uv_overcured": 30,
        "micro_crack": 30,
        "pre_damage": 50,
        "thick_panel": 40,
    }


@pytest.mark.parametrize("panels", [1, 7, 1_180, 20_011])
def test_assignment_holds_exactly_the_counts_and_splits_each_scenario(panels):
    scenario, split = assign(3, panels, np.arange(panels))
    counts = class_counts(panels)
    np.testing.assert_array_equal(np.bincount(scenario, minlength=counts.size), counts)
    for kind, count in enumerate(counts):
        found = np.bincount(split[scenario == kind], minlength=len(SPLITS))
        assert np.all(np.abs(found - count * np.array(SHARES)) < 1)


def test_assignment_of_a_panel_does_not_depend_on_the_range_asked_for():
    everything = assign(5, 50_000, np.arange(50_000))
    some = np.array([49_999, 0, 123, 31_007])
    for whole, part in zip(everything, assign(5, 50_000, some), strict=True):
        np.testing.assert_array_equal(whole[some], part)


def test_assignment_changes_with_the_seed():
    numbers = np.arange(5_000)
    first, second = assign(0, 5_000, numbers)[0], assign(1, 5_000, numbers)[0]
    assert np.mean(first != second) > 0.2
