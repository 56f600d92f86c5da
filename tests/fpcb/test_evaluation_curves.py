"""Curves, areas and intervals against scikit-learn, scipy, closed forms and brute force."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta, binomtest, norm
from sklearn.metrics import (
    average_precision_score,
    precision_recall_curve,
    roc_auc_score,
    roc_curve,
)

from cluster.errors import InputError
from pipelines.fpcb.evaluation.bootstrap import generator, measures, percentiles, replicate
from pipelines.fpcb.evaluation.calibration import calibration
from pipelines.fpcb.evaluation.curves import (
    ALL_CRACKED,
    average_precision,
    by_scenario,
    drawn_curves,
    false_alarm_rate,
    recall_at_precision,
    roc_auc,
    thin,
)
from pipelines.fpcb.evaluation.intervals import median, rate, tail_rate, wilson

# Scores of few values, so that many tie, of panels of both classes.
PANELS = st.lists(st.tuples(st.booleans(), st.integers(-6, 6)), min_size=2, max_size=60).filter(
    lambda rows: 0 < sum(bad for bad, _ in rows) < len(rows)
)


def unpacked(rows):
    return np.array([bad for bad, _ in rows], dtype=int), np.array([s for _, s in rows], float)


def brute_recall(label, score, precision):
    best = 0.0
    for threshold in np.unique(score):
        called = score >= threshold
        if label[called].mean() >= precision:
            best = max(best, label[called].sum() / label.sum())
    return best


def binormal(rng, n_good, n_bad, distance):
    label = np.repeat([0, 1], [n_good, n_bad])
    return label, rng.normal(size=label.size) + distance * label


@given(PANELS, st.sampled_from([0.5, 0.8, 0.99]))
@settings(max_examples=80, deadline=None)
def test_measures_match_scikit_learn_and_brute_force(rows, precision):
    label, score = unpacked(rows)
    good, bad = score[label == 0], score[label == 1]
    once = [np.ones((1, part.size), dtype=int) for part in (good, bad)]
    area, roc, recall = measures(good, bad, *once, precision)[0]
    assert area == pytest.approx(average_precision_score(label, score), abs=1e-12)
    assert roc == pytest.approx(roc_auc_score(label, score), abs=1e-12)
    assert recall == pytest.approx(brute_recall(label, score, precision), abs=1e-12)
    assert recall_at_precision(label, score, precision) == recall


@given(PANELS, st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_measures_of_draws_are_those_of_panels_repeated(rows, random):
    label, score = unpacked(rows)
    good, bad = score[label == 0], score[label == 1]
    n_good = np.array([[1, *(random.randrange(4) for _ in good[1:])]])
    n_bad = np.array([[1, *(random.randrange(4) for _ in bad[1:])]])
    found = measures(good, bad, n_good, n_bad, 0.9)[0]
    many = np.concatenate([np.repeat(good, n_good[0]), np.repeat(bad, n_bad[0])])
    classes = np.repeat([0, 1], [n_good.sum(), n_bad.sum()])
    assert found[0] == pytest.approx(average_precision_score(classes, many), abs=1e-12)
    assert found[1] == pytest.approx(roc_auc_score(classes, many), abs=1e-12)
    assert found[2] == pytest.approx(brute_recall(classes, many, 0.9), abs=1e-12)


@given(PANELS)
@settings(max_examples=15, deadline=None)
def test_areas_stay_when_scores_are_transformed_monotonically(rows):
    label, score = unpacked(rows)
    for moved in (np.exp(score), score**3 - 5, np.arctan(score)):
        assert roc_auc(label, moved) == roc_auc(label, score)
        assert average_precision(label, moved) == average_precision(label, score)
        assert recall_at_precision(label, moved) == recall_at_precision(label, score)


def test_areas_turn_over_when_scores_do():
    label, score = binormal(np.random.default_rng(0), 50, 30, 1.0)
    assert roc_auc(label, -score) == pytest.approx(1 - roc_auc(label, score))


@pytest.mark.parametrize("distance", [0.5, 1.5])
def test_interval_holds_binormal_area_nineteen_times_in_twenty(distance):
    rng = np.random.default_rng(11)
    truth = norm.cdf(distance / np.sqrt(2))
    held = 0
    for trial in range(200):
        _, score = binormal(rng, 60, 40, distance)
        drawn = replicate(
            score[:60, None], score[60:, None], generator(trial, "coverage"), replicas=200
        )
        low, high = percentiles(drawn[0, :, 1])
        held += low <= truth <= high
    # 0.9 … 0.99 of 200: six standard errors around what is promised would be wider still.
    assert 178 <= held <= 199


def test_bootstrap_draws_as_often_as_there_are_panels():
    # A score that is its panel's number: the area of one draw follows from the draws themselves,
    # and its spread over replicas from the variance of a mean.
    bad = np.arange(1.0, 41.0)[:, None]
    good = np.zeros((30, 1))
    good[::2] = 20.5
    drawn = replicate(good, bad, generator(3, "spread"), replicas=4_000)[0, :, 1]
    share, above = 0.5, 0.5  # good panels at 20.5; cracked ones above it
    spread = np.sqrt(above**2 * share * share / 30 + share**2 * above * above / 40)
    spread = np.sqrt(spread**2 + share * share * above * above / (30 * 40))
    assert drawn.mean() == pytest.approx(0.75, abs=4 * spread / np.sqrt(4_000))
    assert drawn.std() == pytest.approx(spread, rel=0.05)


def test_replicas_of_detectors_are_of_the_same_panels():
    label, score = binormal(np.random.default_rng(5), 80, 30, 1.0)
    both = np.stack([score, np.exp(score)], axis=1)
    drawn = replicate(both[label == 0], both[label == 1], generator(0, "paired"), replicas=50)
    np.testing.assert_array_equal(drawn[0], drawn[1])


def test_replicas_repeat_with_the_seed_and_differ_with_the_name():
    label, score = binormal(np.random.default_rng(5), 80, 30, 1.0)
    parts = score[label == 0, None], score[label == 1, None]
    first, again, other = (
        replicate(*parts, generator(0, name), replicas=50) for name in ("a", "a", "b")
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_drawn_curves_match_scikit_learn_when_nothing_is_thinned():
    label, score = binormal(np.random.default_rng(2), 60, 40, 1.0)
    score = np.round(score, 1)
    drawn = drawn_curves(label, score)
    fpr, tpr, _ = roc_curve(label, score, drop_intermediate=False)
    np.testing.assert_allclose(drawn["roc"]["false_alarms"], fpr, atol=1e-6)
    np.testing.assert_allclose(drawn["roc"]["recall"], tpr, atol=1e-6)
    precision, recall, _ = precision_recall_curve(label, score)
    np.testing.assert_allclose(drawn["pr"]["precision"], precision[-2::-1], atol=1e-6)
    np.testing.assert_allclose(drawn["pr"]["recall"], recall[-2::-1], atol=1e-6)
    for k in (0, 7, -1):
        ends = binomtest(round(tpr[k] * 40), 40).proportion_ci(method="wilson")
        assert drawn["roc"]["recall_low"][k] == pytest.approx(ends.low, abs=1e-6)
        assert drawn["roc"]["recall_high"][k] == pytest.approx(ends.high, abs=1e-6)


def test_thinned_curves_keep_ends_and_area():
    label, score = binormal(np.random.default_rng(3), 4_000, 3_000, 1.2)
    roc, pr = (drawn_curves(label, score)[name] for name in ("roc", "pr"))
    assert max(len(roc["recall"]), len(pr["recall"])) <= 400
    assert (roc["false_alarms"][0], roc["recall"][0]) == (0, 0)
    assert (roc["false_alarms"][-1], roc["recall"][-1]) == (1, 1)
    assert pr["recall"][-1] == 1
    assert pr["precision"][-1] == pytest.approx(3 / 7, abs=1e-6)
    area = np.trapezoid(roc["recall"], roc["false_alarms"])
    assert area == pytest.approx(roc_auc(label, score), abs=2e-3)


@given(st.integers(2, 300), st.integers(2, 50))
@settings(max_examples=40, deadline=None)
def test_thin_keeps_order_ends_and_limit(n, most):
    at = thin(np.linspace(0, 1, n), np.linspace(0, 1, n) ** 3, most)
    assert (at[0], at[-1]) == (0, n - 1)
    assert len(at) <= max(most, 2)
    assert (np.diff(at) > 0).all()


@given(st.integers(0, 40), st.integers(1, 40))
@settings(max_examples=40, deadline=None)
def test_rates_match_scipy(count, n):
    count = min(count, n)
    exact = rate(count, n)
    lowest = beta.ppf(0.025, count, n - count + 1) if count else 0.0
    highest = beta.ppf(0.975, count + 1, n - count) if count < n else 1.0
    assert (exact.low, exact.high) == pytest.approx((lowest, highest), abs=1e-8)
    ends = binomtest(count, n).proportion_ci(method="wilson")
    low, high = wilson(np.array([count]), np.array([n]))
    assert (low[0], high[0]) == pytest.approx((ends.low, ends.high), abs=1e-9)


def test_rate_of_nothing_is_unknown():
    assert rate(0, 0).to_dict() == {"value": None, "low": 0.0, "high": 1.0, "n": 0}


def test_tail_rate_covers_whatever_the_distribution():
    rng = np.random.default_rng(1)
    for draw, beyond in (
        (rng.standard_exponential, lambda x: np.exp(-x)),
        (rng.standard_cauchy, lambda x: 0.5 - np.arctan(x) / np.pi),
    ):
        values = np.sort(draw((2_000, 50)), axis=1)
        truth = beyond(values[:, -3])  # two lie above
        low, high = tail_rate(2, 50)
        assert np.mean((truth >= low) & (truth <= high)) == pytest.approx(0.95, abs=0.02)


def test_median_interval_is_of_order_statistics():
    found = median(np.arange(1.0, 26.0))
    # Binomial(25, 1/2): the 8th and the 18th of 25 hold the median at 95 %.
    assert (found.value, found.low, found.high) == (13, 8, 18)
    assert median(np.arange(3.0)).low is None
    assert median(np.empty(0)).value is None


def test_cracked_scenarios_are_held_against_all_good_panels():
    rng = np.random.default_rng(4)
    scenario = np.repeat(["normal", "thick_panel", "crack", "pre_damage"], [40, 20, 15, 10])
    label = np.isin(scenario, ["crack", "pre_damage"]).astype(int)
    score = rng.normal(size=85) + label
    table = by_scenario(label, score, scenario, threshold=1.0, replicas=200)
    assert list(table["cracked"]) == [ALL_CRACKED, "crack", "pre_damage"]
    for name in ("crack", "pre_damage"):
        own = (scenario == name) | (label == 0)
        found = table["cracked"][name]
        assert found["pr_auc"]["value"] == pytest.approx(
            average_precision_score(label[own], score[own])
        )
        assert found["roc_auc"]["value"] == pytest.approx(roc_auc_score(label[own], score[own]))
        assert found["pr_auc"]["low"] < found["pr_auc"]["value"] < found["pr_auc"]["high"]
        assert found["pr_auc"]["n"] == (scenario == name).sum()
    thick = score[scenario == "thick_panel"]
    called = table["good"]["thick_panel"]["called_ng"]
    assert (called["value"], called["n"]) == ((thick > 1.0).mean(), 20)
    assert false_alarm_rate(label, score, 1.0).value == (score[label == 0] > 1.0).mean()


def test_interval_of_a_flawless_detector_is_no_point():
    label = np.repeat([0, 1], [300, 60])
    found = by_scenario(label, label.astype(float), np.full(360, "line"), replicas=50)
    measured = found["cracked"]["line"]
    hidden = 1 - 0.025 ** (1 / 60)
    assert measured["recall_at_precision"]["low"] == pytest.approx(1 - hidden)
    assert measured["roc_auc"]["low"] == pytest.approx(1 - hidden / 300)
    assert measured["pr_auc"]["low"] == pytest.approx(1 - hidden / 61)
    assert all(one["value"] == one["high"] == 1.0 for one in measured.values())


def test_scenario_of_few_panels_has_a_value_without_interval():
    label = np.repeat([0, 1], [30, 3])
    found = by_scenario(label, label + np.linspace(0, 2, 33) % 1, np.full(33, "few"), replicas=20)
    one = found["cracked"]["few"]["roc_auc"]
    assert one["value"] is not None
    assert (one["low"], one["high"], one["n"]) == (None, None, 3)


def test_scenario_without_cracked_panels_shows_false_alarms_alone():
    table = by_scenario(np.zeros(30), np.arange(30.0), np.full(30, "my own name"), threshold=27.5)
    assert table["cracked"] == {}
    assert table["good"]["my own name"]["called_ng"]["value"] == pytest.approx(2 / 30)


@pytest.mark.parametrize(
    ("label", "score", "words"),
    [
        ([], [], "no panels"),
        ([0, 1], [0.1, np.nan], "finite numbers, got 1 that are NaN or infinite, the first at row"),
        ([0, 1], [np.inf, 0.2], "first at row 0"),
        ([0, 2], [0.1, 0.2], "label: expected 0 (good) or 1 (cracked), got 2 at row 1"),
        ([0, 1, 1], [0.1, 0.2], "one for each of 2 scores"),
        ([0, 0], [0.1, 0.2], "good ones alone"),
        ([1, 1], [0.1, 0.2], "cracked ones alone"),
    ],
)
@pytest.mark.parametrize("measure", [roc_auc, average_precision, recall_at_precision, drawn_curves])
def test_scores_that_cannot_be_judged_are_refused(measure, label, score, words):
    with pytest.raises(InputError) as caught:
        measure(label, score)
    assert words in str(caught.value)


def test_scenarios_must_match_panels():
    with pytest.raises(InputError, match="scenarios"):
        by_scenario([0, 1], [0.0, 1.0], ["normal"])


def test_calibration_matches_brute_force():
    rng = np.random.default_rng(6)
    p = rng.random(500)
    label = (rng.random(500) < p).astype(int)
    found = calibration(label, p)
    assert found["brier"] == pytest.approx(np.mean((p - label) ** 2))
    expected = -np.mean(np.log(np.where(label == 1, p, 1 - p)))
    assert found["log_loss"] == pytest.approx(expected)
    third = found["bins"][3]
    own = (p >= 0.3) & (p < 0.4)
    assert (third["n"], third["stated"]) == (own.sum(), pytest.approx(p[own].mean()))
    assert third["seen"]["value"] == pytest.approx(label[own].mean())
    gaps = [one["n"] * abs(one["stated"] - one["seen"]["value"]) for one in found["bins"]]
    assert found["expected_error"] == pytest.approx(sum(gaps) / 500)
    assert sum(one["n"] for one in found["bins"]) == 500


def test_calibration_takes_certainty_and_one_class():
    found = calibration([0, 0, 0], [0.0, 0.0, 1.0])
    assert [one["n"] for one in found["bins"]] == [2, 1]
    assert found["brier"] == pytest.approx(1 / 3)


def test_calibration_refuses_what_is_no_probability():
    with pytest.raises(InputError, match=r"between 0 and 1, got 1\.5 at row 1"):
        calibration([0, 1], [0.5, 1.5])
