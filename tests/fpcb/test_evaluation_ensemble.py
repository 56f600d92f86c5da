"""The ensemble: rises with each member, never below the best, calibrated, and safe to load."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, log_loss

from cluster.errors import InputError
from pipelines.fpcb.evaluation.ensemble import LOGISTIC, MAXIMUM, Ensemble, learn_ensemble
from pipelines.fpcb.evaluation.monotone_logistic import fit

MEMBERS = ("dream", "patchcore")


def panels(rng, n_good=300, n_bad=60, distances=(2.0, 1.5)):
    label = np.repeat([0, 1], [n_good, n_bad])
    return label, rng.normal(size=(label.size, len(distances))) + label[:, None] * distances


def test_fit_matches_scikit_learn_when_no_weight_wants_to_be_negative():
    label, z = panels(np.random.default_rng(0))
    weights, intercept = fit(z, label == 1, (0, 1), 0.01)
    peer = LogisticRegression(C=1 / (0.01 * len(z)), tol=1e-10, max_iter=10_000).fit(z, label)
    np.testing.assert_allclose(weights, peer.coef_[0], atol=1e-4)
    assert intercept == pytest.approx(peer.intercept_[0], abs=1e-4)


def test_fit_zeroes_a_member_that_points_the_wrong_way():
    label, z = panels(np.random.default_rng(1), distances=(2.0, -2.0))
    weights, intercept = fit(z, label == 1, (0, 1), 0.01)
    alone, same = fit(z, label == 1, (0,), 0.01)
    assert weights[1] == 0
    np.testing.assert_allclose([*weights, intercept], [*alone, same], atol=1e-4)


def test_ensemble_of_two_views_beats_each():
    rng = np.random.default_rng(2)
    found = Ensemble.of_labels(*panels(rng, 1_500, 400), MEMBERS)
    label, scores = panels(rng, 4_000, 1_000)
    together = average_precision_score(label, found.score(scores))
    assert together > max(average_precision_score(label, scores[:, j]) for j in (0, 1)) + 0.02
    assert found.kind == LOGISTIC
    assert min(found.weights) > 0


@given(st.integers(0, 10_000), st.floats(-1, 4), st.floats(-1, 4), st.integers(5, 20))
@settings(max_examples=6, deadline=None)
def test_ensemble_is_never_below_its_best_member_on_validation(seed, a, b, n_bad):
    label, scores = panels(np.random.default_rng(seed), 60, n_bad, (a, b))
    found = Ensemble.of_labels(label, scores, MEMBERS)
    alone = [average_precision_score(label, scores[:, j]) for j in (0, 1)]
    assert average_precision_score(label, found.score(scores)) >= max(alone) - 1e-9
    assert found.about["member_pr_auc"] == pytest.approx(dict(zip(MEMBERS, alone, strict=True)))
    assert min(found.weights) >= 0


@pytest.mark.parametrize("kind", [LOGISTIC, MAXIMUM])
def test_score_never_falls_when_a_member_rises(kind):
    rng = np.random.default_rng(3)
    label, scores = panels(rng)
    learned = {
        LOGISTIC: lambda: Ensemble.of_labels(label, scores, MEMBERS),
        MAXIMUM: lambda: Ensemble.of_maximum(scores[label == 0], MEMBERS),
    }[kind]()
    for j in (0, 1):
        raised = scores.copy()
        raised[:, j] += rng.exponential(size=len(scores))
        assert (learned.score(raised) >= learned.score(scores)).all()
        assert (learned.probability(raised) >= learned.probability(scores)).all()


def test_probability_is_calibrated_where_the_truth_is_known():
    rng = np.random.default_rng(4)
    found = Ensemble.of_labels(*panels(rng, 3_000, 1_000), MEMBERS)
    label, scores = panels(rng, 30_000, 10_000)
    ratio = norm.logpdf(scores, loc=(2.0, 1.5)).sum(1) - norm.logpdf(scores).sum(1)
    truth = 1 / (1 + 3 * np.exp(-ratio))
    # asinh bends what is straight here, so that a few hundredths remain.
    assert np.abs(found.probability(scores) - truth).mean() < 0.03
    assert log_loss(label, found.probability(scores)) < log_loss(label, truth) * 1.15


def test_left_out_losses_foretell_those_of_new_panels():
    rng = np.random.default_rng(5)
    found = Ensemble.of_labels(*panels(rng, 1_500, 500), MEMBERS)
    label, scores = panels(rng, 15_000, 5_000)
    new = log_loss(label, found.probability(scores))
    assert found.about["log_loss_left_out"] == pytest.approx(new, rel=0.25)


def test_separated_panels_give_finite_weights():
    label, scores = panels(np.random.default_rng(6), distances=(1_000.0, 1e6))
    found = Ensemble.of_labels(label, scores, MEMBERS)
    assert np.isfinite([*found.weights, found.intercept]).all()
    p = found.probability(scores)
    assert p[label == 1].min() > 0.9
    assert p[label == 0].max() < 0.1
    assert found.about["pr_auc"] == pytest.approx(1.0)


def test_scale_of_a_member_makes_no_difference():
    label, scores = panels(np.random.default_rng(7))
    one = Ensemble.of_labels(label, scores, MEMBERS).score(scores)
    other = scores * [1e-6, 1e5] + [3, -7e4]
    same = Ensemble.of_labels(label, other, MEMBERS).score(other)
    np.testing.assert_allclose(one, same, atol=1e-3)


def test_constant_member_changes_nothing():
    label, scores = panels(np.random.default_rng(8), distances=(1.5,))
    both = np.column_stack([scores, np.full(len(scores), 0.1)])
    found = Ensemble.of_labels(label, both, MEMBERS)
    assert average_precision_score(label, found.score(both)) == pytest.approx(
        average_precision_score(label, scores[:, 0])
    )
    silent = np.full_like(both, 3.0)
    assert np.isfinite(Ensemble.of_labels(label, silent, MEMBERS).probability(silent)).all()


def test_member_that_varies_in_cracked_panels_alone_is_used():
    label = np.repeat([0, 1], [50, 20])
    scores = np.column_stack([label * 5.0, np.random.default_rng(9).normal(size=70)])
    found = Ensemble.of_labels(label, scores, MEMBERS)
    assert average_precision_score(label, found.score(scores)) == pytest.approx(1.0)


@pytest.mark.parametrize("n_bad", [0, 60])
def test_order_of_panels_and_how_they_are_cut_make_no_difference(n_bad):
    label, scores = panels(np.random.default_rng(10), n_bad=n_bad)
    order = np.random.default_rng(0).permutation(len(label))
    one = learn_ensemble(label, scores, MEMBERS)
    two = learn_ensemble(label[order], scores[order], MEMBERS)
    assert json.dumps(one.to_dict()) == json.dumps(two.to_dict())
    for apply in (one.score, one.probability):
        cut = [apply(part) for part in np.array_split(scores, 71)]
        np.testing.assert_array_equal(np.concatenate(cut), apply(scores))


def test_unlabelled_line_falls_back_to_the_largest_score():
    label, scores = panels(np.random.default_rng(11), n_bad=3)
    found = learn_ensemble(label, scores, MEMBERS)
    assert found.kind == MAXIMUM
    assert "3 cracked and 300 good panels" in found.about["reason"]
    good = scores[label == 0]
    z = (good - np.median(good, axis=0)) / np.ptp(np.quantile(good, [0.5, 0.95], axis=0), axis=0)
    np.testing.assert_allclose(np.sinh(found.score(good)), z.max(axis=1), rtol=1e-9)
    p = found.probability(good)
    assert np.quantile(p, [0.1, 0.5, 0.9]) == pytest.approx([0.1, 0.5, 0.9], abs=0.02)
    assert 0 <= p.min() <= p.max() < 1
    assert learn_ensemble(*panels(np.random.default_rng(11)), MEMBERS).kind == LOGISTIC


@pytest.mark.parametrize("n_bad", [0, 40])
def test_ensemble_outlives_json(n_bad):
    label, scores = panels(np.random.default_rng(12), n_bad=n_bad)
    found = learn_ensemble(label, scores, MEMBERS)
    again = Ensemble.from_dict(json.loads(json.dumps(found.to_dict())))
    assert again == found
    np.testing.assert_array_equal(again.score(scores), found.score(scores))


@pytest.mark.parametrize(
    "change",
    [
        {"weights": [1.0]},
        {"weights": [-1.0, 1.0]},
        {"scale": [0.0, 1.0]},
        {"intercept": float("nan")},
        {"centre": ["a", 1.0]},
        {"members": []},
        {"kind": "forest"},
        {"about": {}},
        {"good_scores": None},
    ],
)
def test_damaged_ensemble_is_refused(change):
    values = learn_ensemble(*panels(np.random.default_rng(13)), MEMBERS).to_dict()
    with pytest.raises(InputError, match=r"ensemble\.json: damaged ensemble"):
        Ensemble.from_dict({**values, **change})
    with pytest.raises(InputError, match="damaged"):
        Ensemble.from_dict({k: v for k, v in values.items() if k not in change})


def test_validation_of_one_class_is_refused_with_a_way_out():
    label, scores = panels(np.random.default_rng(14), n_bad=4)
    with pytest.raises(InputError, match=r"300 good, 4 cracked\. Label .* \(Ensemble\.of_maximum"):
        Ensemble.of_labels(label, scores, MEMBERS)
    for learn in (Ensemble.of_labels, learn_ensemble):
        with pytest.raises(InputError, match="some good ones"):
            learn(np.ones(len(label)), scores, MEMBERS)
    with pytest.raises(InputError, match="some good panels"):
        Ensemble.of_maximum(scores[:0], MEMBERS)


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_scores_that_are_no_number_name_the_member(wrong):
    label, scores = panels(np.random.default_rng(15))
    found = learn_ensemble(label, scores, MEMBERS)
    scores[7, 1] = wrong
    for use in (
        lambda: learn_ensemble(label, scores, MEMBERS),
        lambda: Ensemble.of_maximum(scores, MEMBERS),
        lambda: found.probability(scores),
    ):
        with pytest.raises(InputError, match=r"scores of patchcore: .* the first at row 7"):
            use()
    with pytest.raises(InputError, match=r"expected \(n, 2\)"):
        found.score(scores[:, :1])
