import numpy as np
import pytest
from scipy import stats

from pipelines.fpcb.synthesis import camera
from pipelines.fpcb.synthesis.config import GenerateConfig
from pipelines.fpcb.synthesis.generator import draw_curves, generate
from pipelines.fpcb.synthesis.plan import make_plan
from pipelines.fpcb.synthesis.variation import CAMERA_MODES


def residuals(mode, scenario="normal", panels=400):
    """What the camera did to panels of ``mode``: [(truth row, seen − clean (2, F, P))]."""
    config = GenerateConfig(panels=panels, scenario=scenario)
    clean_config = GenerateConfig(panels=panels, scenario=scenario, noise=0.0)
    numbers = np.arange(panels)
    rows = np.flatnonzero(
        make_plan(config, numbers).nuisances.camera_mode == CAMERA_MODES.index(mode)
    )[:40]
    batch, truth = generate(config, rows)
    plan = make_plan(clean_config, rows)
    clean = [curve.copy() for curve in draw_curves(clean_config, plan)]
    return [
        (row, batch.points[i, :, :, : row["n_points"]] - clean[i][:, :, : row["n_points"]])
        for i, row in enumerate(truth.to_pylist())
    ]


def in_frame(residual):
    return residual - residual.mean(axis=2, keepdims=True)


def test_noise_is_standard_normal():
    noise = camera.draw_noise(np.random.Generator(np.random.SFC64(1)), 400_000, 1.0)
    assert stats.kstest(noise, "norm").pvalue > 0.01
    assert noise.mean() == pytest.approx(0, abs=0.008)
    assert noise.std() == pytest.approx(1, abs=0.005)
    assert np.mean(np.abs(noise) > 3) == pytest.approx(2 * stats.norm.sf(3), rel=0.1)
    assert np.abs(np.corrcoef(noise[:-1], noise[1:])[0, 1]) < 0.008


@pytest.mark.parametrize(("mode", "extra"), [("gaussian", 0.5), ("drift", 0.0)])
def test_noise_of_single_points_has_the_stated_spread(mode, extra):
    ratio = [
        np.var(in_frame(residual)) / (row["noise_px"] ** 2 * (1 + extra**2) + 1 / 12)
        for row, residual in residuals(mode)
    ]
    assert np.mean(ratio) == pytest.approx(1, abs=0.02)  # 1/12: whole pixels


@pytest.mark.parametrize(("mode", "weaker"), [("outliers", 1.0), ("mix", 0.5)])
def test_outliers_are_as_many_and_as_far_as_stated(mode, weaker):
    """Their variance: two coordinates, each uniform within ±3 px."""
    extra = 0.0 if mode == "outliers" else 0.25
    found = []
    for row, residual in residuals(mode):
        usual = row["noise_px"] ** 2 * (1 + extra**2) + 1 / 12
        expected = weaker * row["outlier_share"] * (weaker * 3.0) ** 2 / 3
        found.append((np.var(in_frame(residual)) - usual) / expected)
    assert np.mean(found) == pytest.approx(1, abs=0.15)


def test_drift_grows_by_two_per_cent_a_frame():
    growth = 1 + 0.02 * np.arange(60)
    for row, residual in residuals("drift"):
        seen = residual.mean(axis=2)
        # Light moves whole frames by up to ±light_px; over 60 frames it averages out.
        slope = seen @ growth / (growth @ growth)
        limit = 4 * (row["light_px"] / 3**0.5 + 0.05) / np.sqrt(growth @ growth)
        assert np.abs(slope - [row["drift_x_px"], row["drift_y_px"]]).max() < limit


def test_scale_jitter_resizes_each_frame_about_its_centroid():
    for _, residual in residuals("scale_jitter")[:10]:
        spread = residual.std(axis=2).max(axis=0)
        assert spread.min() < 0.6
        assert spread.max() > 0.8  # 1.5 % of a panel whose points lie some 66 px around
        assert np.abs(residual.mean(axis=2)).max() < 1.2  # light alone: the centroid stays


def test_bad_light_moves_frames_and_scatters_points():
    for row, residual in residuals("gaussian", "light_distortion"):
        frames = residual.mean(axis=2)
        assert np.abs(frames).max() <= row["distortion_px"] + 0.3
        assert frames.std() == pytest.approx(row["distortion_px"] / 3**0.5, rel=0.25)
        spikes = row["distortion_spike_share"] * camera.SPIKE_PX**2 / 3
        expected = 1.25 * row["noise_px"] ** 2 + row["distortion_jitter_px"] ** 2 + spikes + 1 / 12
        assert np.var(in_frame(residual)) == pytest.approx(expected, rel=0.06)


def test_shake_dies_out_and_stops():
    seconds = np.arange(240) / 120
    one = np.array([1.0])
    shaken = camera.shake(seconds, np.array([40]), 12 * one, 0.95 * one, one * 8 / 30)[0]
    after = seconds - seconds[40]
    expected = np.exp(-0.95 * 12 * after) * np.sin(2 * np.pi * 12 * after)
    lasts = (after >= 0) & (after < 8 / 30)
    np.testing.assert_allclose(shaken, np.where(lasts, expected, 0.0), atol=1e-12)


def test_points_are_rounded_and_held_inside_the_image():
    points = np.array([[[-3.0, 5.4, 700.0]], [[1.6, 499.9, 2.0]]], np.float32)
    out = np.zeros(points.shape, np.int16)
    camera.to_pixels(points, out)
    camera.hold_inside(out, 640, 480)
    np.testing.assert_array_equal(out, [[[0, 5, 639]], [[2, 479, 2]]])
