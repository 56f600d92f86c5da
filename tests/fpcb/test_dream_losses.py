"""Losses of DREAM against literal implementations in numpy and scipy."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import correlate

from pipelines.fpcb.dream.losses import focal, ssim


@given(st.integers(0, 99), st.sampled_from([0.0, 1.0, 2.0, 3.5]), st.floats(0.05, 0.95))
def test_focal_loss_is_the_formula_of_the_paper(seed, gamma, alpha):
    random = np.random.default_rng(seed)
    logits, mask = random.normal(0, 4, (3, 1, 5, 7)), random.random((3, 1, 5, 7)) < 0.3
    p = 1 / (1 + np.exp(-logits))
    total = 0.0
    for probability, cracked in zip(p.ravel(), mask.ravel(), strict=True):
        p_t, alpha_t = (probability, alpha) if cracked else (1 - probability, 1 - alpha)
        total -= alpha_t * (1 - p_t) ** gamma * np.log(p_t)
    found = focal(torch.from_numpy(logits), torch.from_numpy(mask.astype(float)), gamma=gamma,
                  alpha=alpha)  # fmt: skip
    assert float(found) == pytest.approx(total / mask.size, rel=1e-9)


def test_focal_loss_stays_finite_where_probabilities_saturate():
    logits = torch.tensor([-200.0, 200.0, -200.0, 200.0], requires_grad=True)
    loss = focal(logits, torch.tensor([1.0, 0.0, 0.0, 1.0]))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()
    assert loss.item() == pytest.approx((0.75 * 200 + 0.25 * 200) / 4)


@pytest.mark.parametrize(("window", "step"), [(11, 1), (7, 1), (7, 3)])
def test_ssim_is_the_formula_of_the_paper(window, step):
    random = np.random.default_rng(window)
    a = random.normal(size=(2, 3, 20, 24))
    b = a + random.normal(0, 0.5, a.shape)
    distance = np.arange(window) - (window - 1) / 2
    kernel = np.exp(-(distance[:, None] ** 2 + distance**2) / (2 * 1.5**2))
    kernel /= kernel.sum()
    inside = slice(window // 2, -(window // 2))

    def mean(values):
        return correlate(values, kernel)[inside, inside][::step, ::step]

    values = []
    for x, y in zip(a.reshape(-1, 20, 24), b.reshape(-1, 20, 24), strict=True):
        mx, my = mean(x), mean(y)
        vx, vy, cov = mean(x * x) - mx**2, mean(y * y) - my**2, mean(x * y) - mx * my
        c1, c2 = (0.01 * 4) ** 2, (0.03 * 4) ** 2
        values.append((2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2)))
    found = ssim(torch.from_numpy(a), torch.from_numpy(b), value_range=4, window=window, step=step)
    assert float(found) == pytest.approx(np.mean(values), rel=1e-5)


def test_ssim_of_equal_maps_is_one_and_of_opposite_ones_is_lower():
    a = 5 + torch.randn(2, 1, 30, 30, generator=torch.Generator().manual_seed(0))
    assert float(ssim(a, a, value_range=4)) == pytest.approx(1, abs=1e-6)
    assert float(ssim(a, 10 - a, value_range=4)) < -0.5
