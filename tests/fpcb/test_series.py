"""Statistics of series against scipy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from slow_features import slow_statistics

from pipelines.fpcb.features.series import STATISTICS, series_statistics


@given(st.integers(4, 70), st.floats(1, 500), st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_series_statistics_match_scipy(n_frames, fps, seed):
    series = np.random.default_rng(seed).normal(3, 2, (2, 3, n_frames))
    found = series_statistics(series, np.full(2, fps))
    assert tuple(sorted(found)) == tuple(sorted(STATISTICS))
    for i, k in np.ndindex(2, 3):
        for name, expected in slow_statistics(series[i, k], fps).items():
            assert found[name][i, k] == pytest.approx(expected, rel=1e-6, abs=1e-9), name


def test_sine_is_told_by_its_frequency_power_and_entropy():
    t = np.arange(60) / 30
    series = 5 + 2 * np.sin(2 * np.pi * 4.5 * t)[None, None]
    found = series_statistics(series, np.array([30.0]))
    assert found["dominant_hz"] == pytest.approx(4.5)
    assert found["power"] == pytest.approx(2)  # amplitude² / 2
    assert found["entropy_bits"] == pytest.approx(0, abs=1e-6)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [0.0, 0.1, -3e8])
@pytest.mark.parametrize("n_frames", [2, 3, 60])
def test_constant_series_has_zero_for_all_but_mean_and_max(value, n_frames):
    found = series_statistics(np.full((1, 1, n_frames), value), np.array([30.0]))
    for name, statistic in found.items():
        expected = value if name in ("mean", "max") else 0
        assert statistic[0, 0] == pytest.approx(expected), name
