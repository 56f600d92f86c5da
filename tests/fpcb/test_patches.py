"""PatchCore's patches: shape, shrinkage, and where a departure is drawn."""

import numpy as np
import pytest

from cluster.errors import InputError
from pipelines.fpcb.detection.kink_filter import KinkFilter, after
from pipelines.fpcb.detection.patches import PatchCoreConfig, departures, make_patches, starts

PLACES, FRAMES = 64, 60


@pytest.fixture
def kink_filter():
    weights = np.zeros((PLACES, PLACES), np.float32)
    weights[6:58, 6:58] = np.eye(52)
    return KinkFilter(weights, np.eye(PLACES, dtype=np.float32))


@pytest.fixture
def panels():
    rng = np.random.default_rng(0)
    evidence = rng.normal(size=(3, FRAMES, PLACES)).astype(np.float32)
    bend = np.linspace(0.05, 3, FRAMES, dtype=np.float32) * np.ones((3, 1), np.float32)
    return evidence, bend


def test_patches_are_the_strongest_evidence_shrunk(kink_filter, panels):
    config = PatchCoreConfig(shrink=1.0, pooled_places=2)
    patches = make_patches(*panels, kink_filter, config)
    assert patches.shape == (3, 12, 26 + 2)
    z = after(*panels)
    for i, w, k in [(0, 0, 0), (1, 5, 13), (2, 11, 25)]:
        pair = z[i, 5 * w, 6 + 2 * k : 8 + 2 * k]
        value = pair[np.abs(pair).argmax()]
        wanted = np.sign(value) * max(abs(value) - 1, 0)
        assert patches[i, w, k] == pytest.approx(wanted, abs=1e-5)


def test_last_two_numbers_are_the_bend_and_its_rate(kink_filter, panels):
    config = PatchCoreConfig(bend_weight=np.pi)
    patches = make_patches(*panels, kink_filter, config)
    bend = panels[1]
    np.testing.assert_allclose(patches[:, :, -2], bend[:, ::5], rtol=1e-6)
    np.testing.assert_allclose(
        patches[:, 3, -1], (bend[:, 19] - bend[:, 15]) * FRAMES / 5, rtol=1e-5
    )


@pytest.mark.parametrize(("frames", "pooled"), [(60, 2), (47, 3), (61, 5)])
def test_any_length_and_pooling_is_covered(kink_filter, frames, pooled):
    rng = np.random.default_rng(1)
    config = PatchCoreConfig(pooled_places=pooled)
    evidence = rng.normal(size=(2, frames, PLACES)).astype(np.float32)
    patches = make_patches(evidence, np.ones((2, frames), np.float32), kink_filter, config)
    maps = departures(patches, np.zeros_like(patches), frames, kink_filter, config)
    assert patches.shape[:2] == (2, starts(frames, config).size)
    assert maps.shape == (2, frames, PLACES)


def test_a_departure_is_drawn_in_its_window_and_place(kink_filter, panels):
    config = PatchCoreConfig()
    patches = make_patches(*panels, kink_filter, config)
    nearest = patches.copy()
    nearest[1, 4, 10] += 3
    maps = departures(patches, nearest, FRAMES, kink_filter, config)
    frame, place = np.nonzero(maps[1])
    assert {*frame} == set(range(20, 25))
    assert {*place} == {26, 27}
    assert not maps[[0, 2]].any()


@pytest.mark.parametrize(
    ("option", "value"),
    [("stride_frames", 0), ("coreset_share", 0.0), ("coreset_share", 1.5), ("shrink", -1.0),
     ("bank_kind", "lsh"), ("neighbours", 0)],
)  # fmt: skip
def test_options_that_cannot_be_used_are_refused(option, value):
    with pytest.raises(InputError, match=option.replace("_", "-")):
        PatchCoreConfig(**{option: value})
