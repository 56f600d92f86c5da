"""The physics against closed forms, an independent integrator and quadrature."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import solve_ivp

from pipelines.fpcb.synthesis import physics
from pipelines.fpcb.synthesis.config import GenerateConfig
from pipelines.fpcb.synthesis.generator import bend
from pipelines.fpcb.synthesis.plan import make_plan

LENGTH_PX = 230.0


def curve(theta, n_points=230, gain=0.0, skew=0.0, place=0.7, width=0.01, n_places=260):
    """Points (2, n_points) of one panel bent by ``theta`` and its weights (n_points,)."""
    count = np.array([n_points])
    weights = physics.curvature_weights(
        count, np.array([skew]), np.array([gain]), np.array([place]), np.array([width]), n_places
    )
    in_place = physics.place_factors(physics.turned_shares(weights, count))
    step_px = np.full((1, 1), LENGTH_PX / (n_points - 1))
    in_frame = physics.frame_factors(np.full((1, 1), theta), step_px, np.zeros((1, 2, 1)))
    return (in_frame @ in_place)[0, :, 0, :n_points], weights[0, :n_points]


@pytest.mark.parametrize("theta", [1e-9, 0.1, 1.0, np.pi / 2, np.pi, 3.43])
def test_evenly_bent_panel_has_the_chord_and_tip_of_an_arc(theta):
    points, _ = curve(theta)
    radius = LENGTH_PX / theta
    arc = radius * np.array([np.sin(theta), 1 - np.cos(theta)])
    assert points[:, -1] == pytest.approx(arc, abs=5e-3)
    assert np.hypot(*points[:, -1]) == pytest.approx(2 * radius * np.sin(theta / 2), rel=2e-5)


@pytest.mark.parametrize(("gain", "skew"), [(0.0, 0.0), (16.0, 0.05), (5.0, -0.08), (0.7, 0.03)])
def test_panel_keeps_its_length_and_turns_by_the_bend_angle(gain, skew):
    theta = 3.0
    points, weights = curve(theta, gain=gain, skew=skew)
    steps = np.diff(points, axis=1)
    assert np.hypot(*steps).sum() == pytest.approx(LENGTH_PX, rel=1e-9)
    angles = np.unwrap(np.arctan2(steps[1], steps[0]))
    ends = 0.5 * (weights[0] + weights[-1]) * theta / (weights.size - 1)
    assert angles[-1] - angles[0] + ends == pytest.approx(theta, abs=2e-3)


@given(
    n_points=st.integers(200, 260),
    skew=st.floats(-0.1, 0.1),
    gain=st.floats(0, 40),
    place=st.floats(0.2, 0.85),
    width=st.floats(0.009, 0.05),
)
def test_curvature_weights_integrate_to_one(n_points, skew, gain, place, width):
    _, weights = curve(1.0, n_points, gain, skew, place, width)
    assert np.trapezoid(weights, dx=1 / (n_points - 1)) == pytest.approx(1.0, abs=1e-12)
    assert weights.min() > 0


def test_points_match_running_sums_of_cosines_and_sines():
    for theta in np.linspace(0, 3.5, 8):
        points, weights = curve(theta, gain=16.0, skew=0.05)
        fine = np.linspace(0, 1, 229 * 2 + 1)  # middles of the segments at odd places
        straight = np.interp(fine, np.linspace(0, 1, 230), weights)
        turned = np.concatenate([[0], np.cumsum((straight[1:] + straight[:-1]) / 2 / (229 * 2))])
        step = LENGTH_PX / 229
        for axis, function in enumerate((np.cos, np.sin)):
            plain = np.concatenate([[0], np.cumsum(step * function(theta * turned[1::2]))])
            np.testing.assert_allclose(points[axis], plain, atol=1e-10)


def test_points_do_not_depend_on_the_padding():
    np.testing.assert_array_equal(
        curve(2.0, gain=5.0, n_places=260)[0], curve(2.0, gain=5.0, n_places=400)[0]
    )


def test_bend_angle_matches_an_independent_integrator():
    """Between frames θ' = λ (target − θ) with 1 − exp(−λ) = response and a constant target."""
    rng = np.random.default_rng(0)
    drive = np.sort(rng.random((3, 60)), axis=1)
    response = rng.uniform(0.05, 0.9, (3, 60))
    end = np.array([[3.0], [2.5], [1.0]])
    theta = physics.bend_angle(drive, np.broadcast_to(end, drive.shape), response)
    for row in range(3):
        now = 0.0
        for frame in range(60):
            rate, target = -np.log1p(-response[row, frame]), end[row, 0] * drive[row, frame]
            course = solve_ivp(
                lambda _, y, rate=rate, target=target: rate * (target - y),
                (0, 1), [now], rtol=1e-10, atol=1e-12,
            )  # fmt: skip
            now = course.y[0, -1]
            assert theta[row, frame] == pytest.approx(now, abs=1e-7)


def test_bend_angle_relaxes_without_a_leap_when_the_end_angle_falls():
    drive, response = np.ones((1, 40)), np.full((1, 40), 0.2)
    end = np.where(np.arange(40) < 20, 3.0, 2.0)[None]
    theta = physics.bend_angle(drive, end, response)[0]
    expected = theta[19] + 0.2 * (2.0 - theta[19])
    assert theta[20] == pytest.approx(expected)
    assert theta[-1] == pytest.approx(2.0, abs=0.02)


@pytest.mark.parametrize("scenario", ["normal", "thick_panel", "light_distortion", "kink"])
def test_panels_without_a_jolt_bend_monotonically_and_stop_short_of_their_end_angle(scenario):
    config = GenerateConfig(panels=300, scenario=scenario)
    plan = make_plan(config, np.arange(300))
    theta = bend(config, plan)
    assert np.all(np.diff(theta, axis=1) >= 0)
    ratio = 0.72 if scenario == "thick_panel" else 1.0
    assert np.all(theta[:, -1] <= np.pi * ratio * plan.nuisances.end_ratio)
    assert np.all(theta[:, -1] > 0.7 * np.pi * ratio * plan.nuisances.end_ratio)


def test_jolt_speeds_the_panel_up_at_the_crack():
    config = GenerateConfig(panels=300, scenario="crack", severity=(1.0,))
    plan = make_plan(config, np.arange(300))
    theta, good = (
        bend(config, plan),
        bend(config, make_plan(replace(config, scenario="normal"), np.arange(300))),
    )
    at = (np.arange(300), plan.events.crack_frame)
    assert np.mean(theta[at] > good[at]) > 0.95


def test_over_cured_panel_sticks_after_its_crack():
    config = GenerateConfig(panels=300, scenario="uv_overcured", severity=(1.0,))
    plan = make_plan(config, np.arange(300))
    early = plan.events.crack_frame < 25
    theta, good = (
        bend(config, plan),
        bend(config, make_plan(replace(config, scenario="normal"), np.arange(300))),
    )
    later = (np.flatnonzero(early), plan.events.crack_frame[early] + 8)
    assert np.all(theta[later] < good[later])


def test_bend_is_the_same_course_when_sampled_by_more_frames():
    coarse = GenerateConfig(panels=50, scenario="normal")
    fine = replace(coarse, frames=480)
    slow = bend(coarse, make_plan(coarse, np.arange(50)))
    quick = bend(fine, make_plan(fine, np.arange(50)))
    for row in range(50):
        same = np.interp(np.linspace(0, 1, 60), np.linspace(0, 1, 480), quick[row])
        # A frame's target is held for the whole frame: half a frame of lag is the difference.
        np.testing.assert_allclose(same, slow[row], atol=0.06)


def test_smoothing_shrinks_at_the_ends():
    drive = np.random.default_rng(1).random((2, 30))
    expected = [[row[max(0, f - 2) : f + 3].mean() for f in range(30)] for row in drive]
    np.testing.assert_allclose(physics.smooth_frames(drive), expected, rtol=1e-13)
