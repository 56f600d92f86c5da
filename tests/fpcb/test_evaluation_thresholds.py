"""Thresholds: what they promise holds on validation, and on new panels as often as stated."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta, expon, norm

from cluster.errors import InputError
from pipelines.fpcb.evaluation.thresholds import Threshold, for_false_alarms, for_precision

SCORES = st.lists(st.integers(-5, 5), min_size=1, max_size=60)


def panels(good, bad):
    return np.repeat([0, 1], [len(good), len(bad)]), np.array([*good, *bad], dtype=float)


@given(SCORES, SCORES, st.sampled_from([0.001, 0.01, 0.05, 0.2, 0.5, 0.9]))
@settings(max_examples=80, deadline=None)
def test_false_alarms_on_validation_never_exceed_what_was_wanted(good, bad, wanted):
    label, score = panels(good, bad)
    found = for_false_alarms(label, score, wanted)
    assert found.calls(score)[label == 0].mean() == found.got
    assert found.got <= wanted
    assert 0 <= found.low <= found.high <= 1
    assert found.value in good or (found.warning and found.value >= max(good))


@given(st.permutations(range(40)), st.floats(0.001, 0.999))
@settings(max_examples=60, deadline=None)
def test_false_alarm_threshold_is_the_lowest_that_promises_the_rate(good, wanted):
    label, score = panels(good, [])
    found = for_false_alarms(label, score, wanted)
    # j-th largest of n: a new panel exceeds it with probability j / (n + 1).
    j = 40 - int(found.value)
    if wanted * 41 >= 1:
        assert found.value == 40 - j
        assert j / 41 <= wanted + 1e-9
        assert (j + 1) / 41 > wanted - 1e-9
        assert found.warning == ""
    else:
        assert found.value >= 39
        assert "promise 2.44% false alarms at best" in found.warning


def test_new_panels_raise_the_promised_share_of_false_alarms():
    rng = np.random.default_rng(0)
    seen, held = [], 0
    for _ in range(400):
        found = for_false_alarms(*panels(rng.exponential(size=199), []), 0.02)
        truth = np.exp(-found.value)
        seen.append(truth)
        held += found.low <= truth <= found.high
    assert np.mean(seen) == pytest.approx(0.02, abs=4 * np.std(seen) / 20)
    assert held / 400 == pytest.approx(0.95, abs=0.035)


def test_too_few_good_panels_say_what_they_can_promise():
    found = for_false_alarms(*panels(range(200), [500]), 0.001)
    assert found.value > 199
    assert found.got == 0
    assert "200 good validation panels promise 0.50% false alarms at best" in found.warning
    assert "takes 999 good panels" in found.warning
    assert for_false_alarms(*panels(range(999), []), 0.001).warning == ""


@pytest.mark.parametrize("tail", ["exponential", "normal"])
def test_few_good_panels_are_continued_to_about_the_rate_wanted(tail):
    rng = np.random.default_rng(0)
    truth = {"exponential": expon.sf, "normal": norm.sf}[tail]
    rates = [
        truth(for_false_alarms(*panels(getattr(rng, tail)(size=150), []), 0.001).value)
        for _ in range(300)
    ]
    # A normal tail falls faster than an exponential: the rate is then below what was wanted.
    assert np.median(rates) <= 0.002
    assert np.median(rates) >= (0.0005 if tail == "exponential" else 0)


@given(SCORES, SCORES, st.sampled_from([0.3, 0.5, 0.9, 0.99]))
@settings(max_examples=80, deadline=None)
def test_precision_threshold_is_the_smallest_that_meets_it(good, bad, wanted):
    label, score = panels(good, bad)
    found = for_precision(label, score, wanted)
    reached = {}
    for level in np.unique(score):
        reached[level] = label[score >= level].mean()
    called = found.calls(score)
    assert label[called].mean() == pytest.approx(found.got)
    meeting = [level for level, got in reached.items() if got >= wanted]
    if meeting:
        np.testing.assert_array_equal(called, score >= min(meeting))
        assert found.warning == ""
    else:
        assert found.got == pytest.approx(max(reached.values()))
        assert "No threshold reaches precision" in found.warning
    assert found.low <= found.got + 1e-12
    assert found.got <= found.high + 1e-12


def test_precision_at_a_stated_prevalence_follows_bayes():
    rng = np.random.default_rng(1)
    label, score = panels(rng.normal(size=900), rng.normal(3, 1, size=300))
    found = for_precision(label, score, 0.9, prevalence=0.01)
    called = found.calls(score)
    recall, alarms = called[label == 1].mean(), called[label == 0].mean()
    assert found.got == pytest.approx(0.01 * recall / (0.01 * recall + 0.99 * alarms))
    assert found.got >= 0.9
    assert found.value > for_precision(label, score, 0.9).value


def test_precision_interval_takes_exact_bounds_of_both_rates():
    rng = np.random.default_rng(2)
    label, score = panels(rng.normal(size=400), rng.normal(2, 1, size=100))
    found = for_precision(label, score, 0.8)
    called = found.calls(score)
    tp, fp = (int((called & (label == of)).sum()) for of in (1, 0))
    # Each rate at 97.5 %, so that both hold at once at 95 %; classes as frequent as they are.
    recall = beta.ppf([0.0125, 0.9875], [tp, tp + 1], [101 - tp, 100 - tp])
    alarms = beta.ppf([0.0125, 0.9875], [fp, fp + 1], [401 - fp, 400 - fp])
    assert found.low == pytest.approx(100 * recall[0] / (100 * recall[0] + 400 * alarms[1]))
    assert found.high == pytest.approx(100 * recall[1] / (100 * recall[1] + 400 * alarms[0]))


def test_a_precision_met_by_all_panels_calls_all_ng():
    label, score = panels([1.0], [0.0, 2.0, 3.0])
    assert for_precision(label, score, 0.7).calls(score).all()


def test_thresholds_outlive_json():
    label, score = panels(range(50), range(40, 90))
    for found in (for_false_alarms(label, score, 0.1), for_precision(label, score, 0.9, 0.2)):
        assert Threshold.from_dict(json.loads(json.dumps(found.to_dict()))) == found


@pytest.mark.parametrize("change", [{"value": None}, {"value": float("nan")}, {"kind": "x"}, None])
def test_damaged_threshold_is_refused(change):
    values = for_false_alarms(*panels(range(9), []), 0.1).to_dict()
    values = {"value": 1.0} if change is None else {**values, **change}
    with pytest.raises(InputError, match=r"metrics\.json: threshold"):
        Threshold.from_dict(values, "metrics.json")


def test_calls_refuse_scores_that_are_no_number():
    found = for_false_alarms(*panels(range(9), []), 0.1)
    with pytest.raises(InputError, match="NaN at row 1"):
        found.calls([1.0, np.nan])


def test_one_class_in_validation_is_refused_with_a_way_out():
    with pytest.raises(InputError, match="Use --false-alarms, or label cracked panels"):
        for_precision(*panels(range(9), []), 0.9)
    for choose in (for_false_alarms, for_precision):
        with pytest.raises(InputError, match="some good panels"):
            choose(*panels([], range(9)), 0.9)


@pytest.mark.parametrize("wanted", [0, 1, -0.1, 5, float("nan")])
def test_shares_out_of_range_are_refused(wanted):
    label, score = panels(range(9), range(9))
    with pytest.raises(InputError, match="--false-alarms"):
        for_false_alarms(label, score, wanted)
    with pytest.raises(InputError, match="--ng-precision"):
        for_precision(label, score, wanted)
    with pytest.raises(InputError, match="--prevalence"):
        for_precision(label, score, 0.5, prevalence=wanted)


def test_nan_scores_in_validation_are_refused():
    with pytest.raises(InputError, match="validation: scores"):
        for_false_alarms([0, 0], [1.0, np.nan], 0.1)
