"""Derivatives in time against scipy and motions in closed form."""

import numpy as np
import pytest
from scipy.signal import savgol_filter

from pipelines.fpcb.features.kinematics import derivatives, impacts, norm, steps

FPS = np.array([30.0, 24.0], np.float32)


@pytest.mark.parametrize("window", [3, 5, 7, 9])
@pytest.mark.parametrize("n_frames", [9, 10, 60])
def test_derivatives_match_savgol_filter(window, n_frames):
    values = np.random.default_rng(window).normal(size=(2, 2, n_frames, 3)).astype(np.float32)
    for order, found in enumerate(derivatives(values, FPS, window), start=1):
        for panel, fps in enumerate(FPS):
            expected = savgol_filter(
                values[:, panel].astype(float), window, 2, deriv=order, delta=1 / fps, axis=-2
            )
            scale = np.abs(expected).max()
            np.testing.assert_allclose(found[:, panel], expected, rtol=1e-4, atol=1e-5 * scale)


@pytest.mark.parametrize("n_frames", [3, 4, 6, 7, 8, 60])
def test_derivatives_are_exact_for_constant_acceleration(n_frames):
    t = np.arange(n_frames)[:, None] / FPS[0]
    values = (5 + 80 * t + 0.5 * 300 * t**2)[None].astype(np.float32)
    first, second = derivatives(values, FPS[:1], 7)
    np.testing.assert_allclose(first[0], 80 + 300 * t, rtol=1e-3)
    np.testing.assert_allclose(second[0], 300, rtol=2e-2)


def test_two_frames_have_a_velocity_and_no_acceleration():
    values = np.array([[[1.0], [3.0]]], np.float32)
    first, second = derivatives(values, FPS[:1], 7)
    np.testing.assert_allclose(first.ravel(), 60, rtol=1e-5)
    assert (second == 0).all()
    assert (impacts(np.stack([values, values]), FPS[:1]) == 0).all()


def test_impact_is_the_velocity_gained_in_a_frame():
    t = np.arange(12) / 30
    x = np.where(t < t[6], 0, 90 * (t - t[6]))  # starts at once with 90 px/s
    means = np.stack([x, np.zeros(12)])[:, None, :, None].astype(np.float32)
    found = impacts(means, FPS[:1])[0, :, 0]
    assert found[6] == pytest.approx(90, rel=1e-5)
    np.testing.assert_allclose(np.delete(found, 6), 0, atol=1e-3)


def test_steps_peak_at_the_frame_a_lasting_change_begins():
    values = np.zeros((1, 20, 1), np.float32)
    values[:, 8:] = 2.0
    found = steps(values, 5)[0, :, 0]
    assert found.argmax() == 8
    assert found[8] == pytest.approx(2)


def test_steps_have_even_noise_up_to_the_ends():
    values = np.random.default_rng(0).normal(size=(400, 20, 50)).astype(np.float32)
    spread = steps(values, 5).std(axis=(0, 2))
    assert spread[0] == 0
    np.testing.assert_allclose(spread[1:], np.sqrt(2 / 5), rtol=0.03)


def test_norm_is_the_length_of_a_vector():
    assert norm(np.array([[[3.0]], [[4.0]]], np.float32)) == 5
