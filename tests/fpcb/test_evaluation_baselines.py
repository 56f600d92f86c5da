"""Baselines: the best single feature and the Mahalanobis distance, against scikit-learn."""

import json

import numpy as np
import pyarrow as pa
import pytest
from scipy.spatial.distance import cdist
from scipy.stats import chi2
from sklearn.covariance import LedoitWolf
from sklearn.metrics import roc_auc_score

from cluster.errors import InputError
from pipelines.fpcb.evaluation.baselines import BestFeature, Mahalanobis, panel_features
from pipelines.fpcb.features.table import names

WIDTH = 40
NAMES = tuple(f"feature {k}" for k in range(WIDTH))


def panels(rng, n_good=200, n_bad=50, shift=None):
    label = np.repeat([0, 1], [n_good, n_bad])
    values = rng.normal(size=(label.size, WIDTH)).astype(np.float32)
    for index, by in (shift or {}).items():
        values[label == 1, index] += by
    return values, label


def test_best_feature_is_that_of_the_largest_area_on_either_side():
    values, label = panels(np.random.default_rng(0), shift={3: 1.0, 21: -1.6, 30: 0.5})
    found = BestFeature.fit(values, label, NAMES)
    area = np.array([roc_auc_score(label, column) for column in values.T])
    assert found.index == np.abs(area - 0.5).argmax() == 21
    assert (found.name, found.sign) == ("feature 21", -1)
    assert found.train_roc_auc == pytest.approx(1 - area[21])
    assert roc_auc_score(label, found.score(values)) == pytest.approx(found.train_roc_auc)


def test_best_feature_passes_over_unknown_and_constant_columns():
    values, label = panels(np.random.default_rng(1), shift={0: 9.0, 1: 2.0})
    values[5, 0] = np.nan
    values[:, 2] = 4.0
    found = BestFeature.fit(values, label, NAMES)
    assert found.index == 1
    values[7, 1] = np.nan
    assert found.score(values)[7] == pytest.approx(np.median(values[:200, 1][label[:200] == 0][
        np.isfinite(values[:200, 1])
    ]), abs=0.05)  # fmt: skip


def test_best_feature_needs_both_classes():
    values, label = panels(np.random.default_rng(2))
    with pytest.raises(InputError, match="Label some cracked training panels"):
        BestFeature.fit(values, np.zeros_like(label), NAMES)
    with pytest.raises(InputError, match="cracked ones alone"):
        BestFeature.fit(values, np.ones_like(label), NAMES)


def test_distance_matches_scikit_learn_and_scipy():
    rng = np.random.default_rng(3)
    good = (rng.normal(size=(300, WIDTH)) @ rng.normal(size=(WIDTH, WIDTH))) * 100 + 5
    found = Mahalanobis.fit(good, NAMES)
    quartiles = np.quantile(good, [0.25, 0.5, 0.75], axis=0)
    z = (good - quartiles[1]) / ((quartiles[2] - quartiles[0]) / 1.349)
    peer = LedoitWolf().fit(z)
    assert found.shrinkage == pytest.approx(peer.shrinkage_)
    np.testing.assert_allclose(found.score(good), np.sqrt(peer.mahalanobis(z)), rtol=1e-6)
    by_scipy = cdist(z, peer.location_[None], "mahalanobis", VI=peer.precision_)[:, 0]
    np.testing.assert_allclose(found.score(good), by_scipy, rtol=1e-6)


def test_distance_of_good_panels_is_chi_distributed():
    rng = np.random.default_rng(4)
    found = Mahalanobis.fit(rng.normal(size=(4_000, WIDTH)), NAMES)
    squared = found.score(rng.normal(size=(4_000, WIDTH))) ** 2
    wanted = [0.1, 0.5, 0.9]
    np.testing.assert_allclose(np.quantile(squared, wanted), chi2.ppf(wanted, WIDTH), rtol=0.04)


def test_distance_tells_what_no_single_feature_tells():
    rng = np.random.default_rng(5)
    shared = rng.normal(size=(600, 1))
    values = shared + 0.1 * rng.normal(size=(600, WIDTH))
    label = np.repeat([0, 1], [400, 200])
    # Each within its range, but not together.
    values[label == 1, 0] = rng.normal(size=200)
    fitted = Mahalanobis.fit(values[:300], NAMES)
    best = BestFeature.fit(values, label, NAMES)
    assert roc_auc_score(label[300:], fitted.score(values[300:])) > 0.85
    assert best.train_roc_auc < 0.65


def test_distance_drops_unknown_and_constant_columns_and_takes_more_columns_than_panels():
    rng = np.random.default_rng(6)
    good = rng.normal(size=(20, WIDTH)).astype(np.float32)
    good[3, 1] = np.nan
    good[:, 2] = 7.0
    good[:, 4] = np.where(np.arange(20) == 0, 1.0, 0.0)  # no spread between its quartiles
    found = Mahalanobis.fit(good, NAMES)
    assert set(range(WIDTH)) - set(found.kept.tolist()) == {1, 2}
    assert np.isfinite(found.score(good)).all()
    lost = good[5:6].copy()
    lost[0, 8] = np.nan
    middle = good[5:6].copy()
    middle[0, 8] = np.median(good[:, 8])
    np.testing.assert_allclose(found.score(lost), found.score(middle), rtol=1e-6)


def test_scores_do_not_depend_on_how_panels_are_cut():
    rng = np.random.default_rng(7)
    found = Mahalanobis.fit(rng.normal(size=(100, WIDTH)), NAMES)
    many = rng.normal(size=(3_050, WIDTH)).astype(np.float32)
    whole = found.score(many)
    for size in (1, 3, 10):
        cut = [found.score(many[start : start + size]) for start in range(0, 300 * size, size)]
        np.testing.assert_array_equal(whole[: 300 * size], np.concatenate(cut))


def test_baselines_do_not_depend_on_the_order_of_panels():
    values, label = panels(np.random.default_rng(11), shift={3: 1.0})
    order = np.random.default_rng(0).permutation(len(values))
    for fit in (lambda x, y: BestFeature.fit(x, y, NAMES), lambda x, _: Mahalanobis.fit(x, NAMES)):
        assert fit(values, label).to_dict() == fit(values[order], label[order]).to_dict()


def test_baselines_outlive_json():
    values, label = panels(np.random.default_rng(8), shift={3: 1.0})
    for found in (BestFeature.fit(values, label, NAMES), Mahalanobis.fit(values, NAMES)):
        again = type(found).from_dict(json.loads(json.dumps(found.to_dict())))
        np.testing.assert_array_equal(again.score(values), found.score(values))


@pytest.mark.parametrize(
    "change",
    [
        {"kept": [0, 900]},
        {"kept": []},
        {"whitening": [[1.0]]},
        {"scale": None},
        {"mean": "x"},
        {"shrinkage": None},
    ],
)
def test_damaged_distance_is_refused(change):
    values = Mahalanobis.fit(panels(np.random.default_rng(9))[0], NAMES).to_dict()
    with pytest.raises(InputError, match=r"baselines\.json: damaged Mahalanobis distance"):
        Mahalanobis.from_dict({**values, **change})


@pytest.mark.parametrize(
    "change", [{"sign": 0}, {"index": WIDTH}, {"middle": None}, {"index": "a"}]
)
def test_damaged_feature_is_refused(change):
    values = BestFeature.fit(*panels(np.random.default_rng(9)), NAMES).to_dict()
    with pytest.raises(InputError, match=r"baselines\.json: damaged best feature"):
        BestFeature.from_dict({**values, **change})


def test_features_of_another_version_are_refused():
    values, label = panels(np.random.default_rng(10))
    for found in (BestFeature.fit(values, label, NAMES), Mahalanobis.fit(values, NAMES)):
        with pytest.raises(InputError, match=r"expected \(n, 40\), got \(250, 39\)"):
            found.score(values[:, 1:])


def test_features_that_say_nothing_are_refused():
    with pytest.raises(InputError, match="at least 2"):
        Mahalanobis.fit(np.ones((1, WIDTH)), NAMES)
    with pytest.raises(InputError, match="known and vary"):
        Mahalanobis.fit(np.ones((9, WIDTH)), NAMES)


def test_panel_features_come_in_the_order_of_the_feature_table():
    columns = {f"panel_{name}": pa.array([k, k + 0.5], pa.float32()) for k, name in
               enumerate(names("panel"))}  # fmt: skip
    table = pa.table({"label": [0, 1], **dict(reversed(columns.items()))})
    found = panel_features(table)
    np.testing.assert_array_equal(found[1], np.arange(len(names("panel"))) + 0.5)
    assert found.dtype == np.float32
