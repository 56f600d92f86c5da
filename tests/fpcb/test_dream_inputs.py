"""DREAM's inputs and simulated cracks, against the filter in numpy and what a crack should be."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from pipelines.fpcb.detection.kink_filter import after, fit_filter, onset  # noqa: E402
from pipelines.fpcb.dream.config import CrackConfig  # noqa: E402
from pipelines.fpcb.dream.cracks import corrupt, draw_cracks  # noqa: E402
from pipelines.fpcb.dream.inputs import N_INPUTS, Inputs  # noqa: E402
from pipelines.fpcb.features.extraction import extract  # noqa: E402
from pipelines.fpcb.synthesis.config import GenerateConfig  # noqa: E402
from pipelines.fpcb.synthesis.generator import generate  # noqa: E402


@pytest.fixture(scope="module")
def raw():
    batch, _ = generate(GenerateConfig(panels=300, scenario="normal", seed=4), np.arange(300))
    maps = extract(batch).maps.astype(np.float32)
    return np.ascontiguousarray(maps[:, [1, 0]])


@pytest.fixture(scope="module")
def inputs(raw):
    return Inputs(fit_filter(raw[:, 0], raw[:, 1].mean(axis=-1), 5))


def drawn(n=300, seed=0, **options):
    generator = torch.Generator().manual_seed(seed)
    return draw_cracks(n, 60, CrackConfig(**options), generator)


def test_evidence_is_that_of_the_filter_in_numpy(raw, inputs):
    fitted = fit_filter(raw[:, 0], raw[:, 1].mean(axis=-1), 5)
    found = inputs(torch.from_numpy(raw))
    y, bend = fitted.evidence(raw[:, 0]), raw[:, 1].mean(axis=-1)
    assert found.shape == (300, N_INPUTS, 60, 64)
    for channel, wanted in enumerate((y, after(y, bend), onset(y, bend))):
        np.testing.assert_allclose(found[:, channel], np.arcsinh(wanted / 2), atol=1e-4)


def test_a_crack_leaves_the_evidence_that_was_drawn(raw, inputs):
    cracks = drawn(corrupted=1.0, strength=(3.0, 8.0), jolts=0.0, from_start=0.0)
    cracked, _ = corrupt(torch.from_numpy(raw), cracks, inputs)
    before, later = (torch.sinh(inputs(maps)[:, 1]) for maps in (torch.from_numpy(raw), cracked))
    gained = 2 * (later - before)
    rows, frame, place = torch.arange(300), cracks.frame.long(), (cracks.place * 64).long()
    ratio = gained[rows, frame, place] / cracks.strength
    assert ratio.median() == pytest.approx(1, abs=0.05)
    assert (ratio > 0.5).float().mean() > 0.95


def test_nothing_happens_before_the_crack_or_without_one(raw, inputs):
    cracks = drawn(corrupted=0.5, from_start=0.0)
    whole = torch.from_numpy(raw)
    cracked, mask = corrupt(whole, cracks, inputs)
    before = torch.arange(60) < cracks.frame[:, None]
    untouched = before | (cracks.corrupted == 0)[:, None]
    assert torch.equal(cracked.transpose(1, 2)[untouched], whole.transpose(1, 2)[untouched])
    assert not mask[:, 0][untouched].any()
    assert mask[cracks.corrupted == 1].flatten(1).any(dim=1).float().mean() > 0.95


def test_the_same_seed_draws_the_same_cracks():
    one, two, other = drawn(seed=3), drawn(seed=3), drawn(seed=4)
    assert torch.equal(one.strength, two.strength)
    assert not torch.equal(one.strength, other.strength)
    assert torch.equal(one[10:20].place, one.place[10:20])


def test_mask_is_around_the_place(raw, inputs):
    cracks = drawn(corrupted=1.0, from_start=1.0)
    _, mask = corrupt(torch.from_numpy(raw), cracks, inputs)
    place = torch.arange(64) + 0.5
    middle = (mask[:, 0, 0] * place).sum(dim=1) / mask[:, 0, 0].sum(dim=1) / 64
    np.testing.assert_allclose(middle, cracks.place, atol=0.5 / 64 + 1e-6)
