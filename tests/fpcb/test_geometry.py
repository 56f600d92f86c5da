"""Shape of a board against curves in closed form."""

import numpy as np
import pytest

from pipelines.fpcb.features.geometry import (
    KINK_PLACES,
    excess,
    kinks,
    measure_shape,
    roughness_px,
    strain,
)
from pipelines.fpcb.features.places import place_means

PLACES = 64


def means_of(curve, scale=100.0):
    """Place means (2, 1, 1, places) of points on a curve, blown up so that rounding is small."""
    points = np.rint(scale * curve).astype(np.int16)[None, :, None, :]
    return place_means(points, np.array([points.shape[-1]]), PLACES)


def along(x, y, count=800):
    """Points at equal arc length along a finely sampled curve: (2, count)."""
    length = np.concatenate([[0], np.cumsum(np.hypot(np.diff(x), np.diff(y)))])
    at = np.linspace(0, length[-1], count)
    return np.stack([np.interp(at, length, x), np.interp(at, length, y)])


@pytest.mark.parametrize("total_deg", [30.0, 180.0, 340.0, -90.0])
def test_circle_has_curvature_one_over_its_radius(total_deg):
    radius, t = 150 / np.radians(abs(total_deg)), np.linspace(0, np.radians(total_deg), 800)
    shape = measure_shape(means_of(radius * np.stack([np.sin(t), 1 - np.cos(t)])), 5)
    curvature = np.sign(total_deg) / (100 * radius)
    np.testing.assert_allclose(shape.curvature_per_px, curvature, rtol=0.02)
    assert np.degrees(shape.bend_rad) == pytest.approx(total_deg, rel=1e-3)
    assert shape.length_px == pytest.approx(15_000, rel=6e-3)


@pytest.mark.parametrize("direction_deg", [0, 37, 90, 180, -120])
def test_line_has_no_curvature_in_any_direction(direction_deg):
    s, angle = np.linspace(0, 100, 400), np.radians(direction_deg)
    shape = measure_shape(means_of(np.outer([np.cos(angle), np.sin(angle)], s)), 5)
    assert np.abs(shape.turn).max() < 0.1
    assert shape.length_px == pytest.approx(10_000, rel=1e-3)


def test_sine_has_the_curvature_of_its_closed_form():
    x = np.linspace(0, 300, 200_001)
    rate, height = 2 * np.pi / 300, 40.0
    points = along(x, height * np.sin(rate * x))
    shape = measure_shape(means_of(points), 5)
    at = place_means(
        np.rint(100 * points).astype(np.int16)[None, :, None, :], np.array([800]), PLACES
    )
    middle = at[0, 0, 0] / 100
    slope = height * rate * np.cos(rate * middle)
    expected = -height * rate**2 * np.sin(rate * middle) / (1 + slope**2) ** 1.5 / 100
    inner = slice(4, -4)
    found = shape.curvature_per_px[0, 0]
    np.testing.assert_allclose(found[inner], expected[inner], atol=0.04 * np.abs(expected).max())


def test_kink_has_its_angle_and_place():
    for angle_deg in (10.0, 40.0):
        turn = np.where(np.arange(800) < 480, 0.0, np.radians(angle_deg))
        curve = np.cumsum(np.stack([np.cos(turn), np.sin(turn)]), axis=-1) * 0.3
        found = kinks(excess(measure_shape(means_of(curve), 5).turn), 5)[0, 0]
        assert np.degrees(found.max()) == pytest.approx(angle_deg, rel=0.05)
        assert (found.argmax() + 0.5) / PLACES == pytest.approx(0.6, abs=0.02)


def test_kinks_sum_the_excess_over_their_places():
    values = np.random.default_rng(0).normal(size=(2, 3, PLACES)).astype(np.float32)
    reach = 4 + KINK_PLACES // 2
    found = kinks(values, 5)
    for g in range(reach, PLACES - reach):
        expected = values[..., g - 3 : g + 4].sum(axis=-1) / PLACES
        np.testing.assert_allclose(found[..., g], expected, rtol=1e-4, atol=1e-6)
    assert (found[..., :reach] == found[..., reach : reach + 1]).all()


def test_roughness_is_the_noise_of_places_on_any_smooth_curve():
    rng = np.random.default_rng(0)
    t = np.linspace(0, np.pi, PLACES)
    curve = 73 * np.stack([np.sin(t), np.cos(t)])[:, None, None]
    noisy = curve + rng.normal(0, 0.3, (2, 1, 500, PLACES))
    assert roughness_px(noisy.astype(np.float32)).mean() == pytest.approx(0.3, rel=0.05)


def test_strain_of_a_board_of_90_um_on_a_radius_of_9_mm_is_half_a_percent():
    assert strain(np.float32(1 / 9e-3), 90.0) == pytest.approx(0.005)


def test_place_means_are_those_of_a_line_for_any_number_of_points():
    for count in (4, 13, 64, 65, 230, 1000):
        row = 10 * np.arange(count, dtype=np.int16)
        points = np.broadcast_to(row, (1, 2, 1, count))
        found = place_means(points, np.array([count]), PLACES)
        middles = 10 * (count - 1) * (np.arange(PLACES) + 0.5) / PLACES
        np.testing.assert_allclose(found[0, 0, 0], middles, rtol=1e-4)
