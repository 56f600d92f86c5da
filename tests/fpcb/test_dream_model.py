"""A trained DREAM at rest: the same after a round trip, for any batch; damaged ones refused."""

import json
import os
import pickle

import numpy as np
import pytest
import torch

from cluster.errors import InputError
from pipelines.fpcb.detection.kink_filter import KinkFilter
from pipelines.fpcb.detection.maps import MAPS
from pipelines.fpcb.dream.inputs import N_INPUTS, Inputs
from pipelines.fpcb.dream.model import (
    ABOUT,
    WEIGHTS,
    About,
    DreamModel,
    checksum,
    panel_scores,
)
from pipelines.fpcb.dream.networks import NetworkPair
from pipelines.fpcb.dream.tabular import Scale, TabularPair
from pipelines.fpcb.features.table import FEATURE_VERSION

N_FRAMES, PLACES = 20, 16


def about(**more):
    known = {
        "variant": "map",
        "columns": tuple(MAPS),
        "n_frames": N_FRAMES,
        "places": PLACES,
        "width": 4,
        "feature_version": FEATURE_VERSION,
        "fingerprint": "f",
        "best": {"epoch": 3, "val_ap": 0.5},
    }
    return About(**{**known, **more})


def map_model():
    torch.manual_seed(1)
    square = np.random.default_rng(0).normal(size=(PLACES, PLACES)).astype(np.float32)
    return DreamModel(NetworkPair(Inputs(KinkFilter(square, square)), N_INPUTS, 4), about())


def tabular_model():
    torch.manual_seed(1)
    mean, std = np.random.default_rng(0).uniform(1, 2, (2, 5)).astype(np.float32)
    columns = tuple("abcde")
    pair = TabularPair(Scale(columns, mean, std))
    return DreamModel(pair, about(variant="tabular", columns=columns, places=1))


def raw_of(model, n):
    random = np.random.default_rng(n)
    if model.about.variant == "map":
        return random.normal(size=(n, len(MAPS), N_FRAMES, PLACES)).astype(np.float16)
    return random.normal(size=(n, N_FRAMES, 5)).astype(np.float32)


@pytest.mark.parametrize("make", [map_model, tabular_model])
def test_saved_model_scores_the_same(make, store):
    model = make()
    model.save(store)
    loaded = DreamModel.load(store)
    raw = raw_of(model, 7)
    maps = model.anomaly_maps(raw)
    assert maps.shape == (7, N_FRAMES, model.about.places)
    assert maps.dtype == np.float32
    assert np.array_equal(loaded.anomaly_maps(raw), maps)
    assert loaded.about == model.about
    assert loaded.reader == model.reader


@pytest.mark.parametrize("make", [map_model, tabular_model])
def test_panel_scores_the_same_whatever_batch_it_is_in(make):
    model = make()
    raw = raw_of(model, 130)
    whole = model.anomaly_maps(raw)
    order = np.random.default_rng(0).permutation(130)
    assert np.array_equal(model.anomaly_maps(raw[order]), whole[order])
    for some in (slice(0, 1), slice(5, 70), slice(129, 130)):
        assert np.array_equal(model.anomaly_maps(raw[some]), whole[some])
    assert model.anomaly_maps(raw[:0]).shape == (0, N_FRAMES, model.about.places)


def test_panel_score_is_the_mean_of_its_largest_values():
    maps = np.random.default_rng(0).normal(size=(4, 6, 5)).astype(np.float32)
    expected = [np.sort(one.ravel())[-3:].mean() for one in maps]
    assert np.allclose(panel_scores(maps, 3), expected)
    assert np.allclose(panel_scores(maps, 1), maps.max(axis=(1, 2)))
    assert np.allclose(panel_scores(maps, 999), maps.mean(axis=(1, 2)), atol=1e-6)


def test_missing_model_is_refused(store):
    with pytest.raises(InputError, match=r"dream\.json: no model"):
        DreamModel.load(store)


def test_model_of_another_feature_version_is_refused(store):
    model = map_model()
    model.about = about(feature_version="0-old")
    model.save(store)
    with pytest.raises(InputError, match=r"another version of the features: .*got 0-old"):
        DreamModel.load(store)


def truncated(data):
    return data[:-7]


def flipped(data):
    return data[:-7] + bytes([data[-7] ^ 1]) + data[-6:]


@pytest.mark.parametrize("damage", [truncated, flipped, lambda data: b""])
def test_damaged_weights_are_refused(store, damage):
    map_model().save(store)
    store.write_bytes(WEIGHTS, damage(store.read_bytes(WEIGHTS)))
    with pytest.raises(InputError, match=r"dream\.safetensors: damaged model"):
        DreamModel.load(store)


def test_missing_weights_and_torn_description_are_refused(store):
    map_model().save(store)
    text = store.read_bytes(ABOUT)
    for spoilt in (text[:40], b"[]", b'{"format": 1}'):
        store.write_bytes(ABOUT, spoilt)
        with pytest.raises(InputError, match=r"dream\.json: damaged model"):
            DreamModel.load(store)
    store.write_bytes(ABOUT, text)
    store.delete(WEIGHTS)
    with pytest.raises(InputError, match=r"dream\.safetensors: damaged model"):
        DreamModel.load(store)


@pytest.mark.parametrize("change", [{"width": 8}, {"variant": "other"}, {"columns": ["x"]}])
def test_weights_that_do_not_fit_their_description_are_refused(store, change):
    map_model().save(store)
    known = json.loads(store.read_bytes(ABOUT))
    store.write_json(ABOUT, known | change)
    with pytest.raises(InputError, match="damaged model"):
        DreamModel.load(store)


def test_pickle_in_place_of_weights_is_not_loaded(store, tmp_path):
    class Payload:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    hostile = pickle.dumps(Payload())
    map_model().save(store)
    store.write_bytes(WEIGHTS, hostile)
    store.write_json(ABOUT, store.read_json(ABOUT) | {"checksum": checksum(hostile)})
    with pytest.raises(InputError, match=r"dream\.safetensors: damaged"):
        DreamModel.load(store)
    assert not (tmp_path / "ran").exists()
