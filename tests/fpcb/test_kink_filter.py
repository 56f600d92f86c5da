"""The matched filter for kinks, against closed forms and brute force."""

import numpy as np
import pytest
from scipy.linalg import solve

from pipelines.fpcb.detection.kink_filter import (
    KinkFilter,
    after,
    fit_filter,
    kink_template,
    noise_rad,
    onset,
)
from pipelines.fpcb.detection.localise import localise
from pipelines.fpcb.features.extraction import extract
from pipelines.fpcb.synthesis.config import GenerateConfig
from pipelines.fpcb.synthesis.generator import generate

WINDOW = 5


def maps_of(n, **options):
    batch, truth = generate(GenerateConfig(panels=n, **options), np.arange(n))
    maps = extract(batch).maps.astype(np.float32)
    return maps[:, 1], maps[:, 0].mean(axis=-1), truth


@pytest.fixture(scope="module")
def good():
    return maps_of(400, scenario="normal", seed=1)


@pytest.fixture(scope="module")
def kinks():
    return maps_of(200, scenario="kink", kink_deg=(2.0, 8.0), seed=2)


@pytest.fixture(scope="module")
def fitted(good):
    return fit_filter(good[0], good[1], WINDOW)


def test_template_turns_by_one_radian_wherever_the_kink_is():
    template = kink_template(64, WINDOW)
    np.testing.assert_allclose(template[10:54].sum(axis=1) / 64, 1, atol=1e-3)
    assert (template[8:56].argmax(axis=1) == np.arange(8, 56)).all()


def test_filter_is_the_whitened_template(good):
    excess, bend, _ = good
    fitted = fit_filter(excess, bend, WINDOW)
    seen = slice(4, 60)
    found = after(fitted.evidence(excess), bend)[:, 0, 32]
    # Whatever the covariance is, no other direction has more signal for its noise.
    profiles = after(excess / noise_rad(excess)[:, None, None], bend)[:, 0, seen].astype(float)
    covariance = np.cov(profiles.T)
    shape = fitted.template[32, seen].astype(float)
    best = solve(covariance, shape)
    reached = (fitted.weights[seen, 32] @ shape) ** 2 / found.var()
    assert reached == pytest.approx(shape @ best, rel=0.15)


def test_evidence_of_good_panels_has_unit_noise(good, fitted):
    found = after(fitted.evidence(good[0]), good[1])[:, ::10, fitted.inside]
    np.testing.assert_allclose(found.std(axis=0).mean(axis=1), 1, atol=0.1)


def test_evidence_does_not_depend_on_the_unit_of_noise(good, fitted):
    np.testing.assert_allclose(
        fitted.evidence(3 * good[0][:5]), fitted.evidence(good[0][:5]), rtol=1e-4, atol=1e-4
    )


def test_sums_over_time_match_brute_force():
    rng = np.random.default_rng(0)
    y = rng.normal(size=(2, 12, 8)).astype(np.float32)
    bend = rng.uniform(0.1, 2, (2, 12)).astype(np.float32)
    z, d = after(y, bend), onset(y, bend)
    for i, f in np.ndindex(2, 12):
        late, early = bend[i, f:], bend[i, :f]
        np.testing.assert_allclose(
            z[i, f], late @ y[i, f:] / np.sqrt(late @ late), rtol=1e-4, atol=1e-5
        )
        if f:
            slope = late @ y[i, f:] / (late @ late) - early @ y[i, :f] / (early @ early)
            spread = np.sqrt(1 / (late @ late) + 1 / (early @ early))
            np.testing.assert_allclose(d[i, f], slope / spread, rtol=1e-3, atol=1e-4)
    assert not d[:, 0].any()


def test_filter_survives_a_round_trip(fitted):
    again = KinkFilter.from_arrays(fitted.to_arrays())
    assert again.weights.tobytes() == fitted.weights.tobytes()
    assert again.inside == fitted.inside


def test_fit_needs_two_panels(good):
    with pytest.raises(ValueError, match="2 or more"):
        fit_filter(good[0][:1], good[1][:1], WINDOW)


def test_kinks_are_found_in_time_and_place(kinks, fitted):
    excess, bend, truth = kinks
    found = localise(excess, bend, fitted)
    frame, place, angle = (
        truth[name].to_numpy() for name in ("damage_frame", "crack_place", "hinge_deg")
    )
    assert np.median(np.abs(found.frame - frame)) <= 1
    assert np.median(np.abs(found.place - place)) <= 0.01
    assert np.median(np.abs(found.kink_deg / angle - 1)) <= 0.1
    inside = (found.earliest <= frame) & (frame <= found.latest)
    assert inside.mean() >= 0.85


def test_localising_needs_no_company(kinks, fitted):
    excess, bend, _ = kinks
    alone = localise(excess[7:8], bend[7:8], fitted)
    together = localise(excess, bend, fitted)
    assert alone.frame[0] == together.frame[7]
    assert alone.place[0] == pytest.approx(together.place[7], abs=1e-5)


def test_panels_that_came_in_damaged_are_told_from_those_that_cracked(fitted):
    excess, bend, _ = maps_of(60, scenario="pre_damage", seed=6)
    assert (localise(excess, bend, fitted).frame == 0).mean() >= 0.6
    excess, bend, truth = maps_of(60, scenario="crack", seed=6)
    assert (localise(excess, bend, fitted).frame == truth["damage_frame"].to_numpy()).mean() >= 0.9
