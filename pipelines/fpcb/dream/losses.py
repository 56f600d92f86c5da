"""Losses on maps: focal for the discriminative network, SSIM and L2 for the reconstructive one."""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

_STABLE_1, _STABLE_2 = 0.01, 0.03  # K1, K2 of the SSIM paper


def focal(logits: Tensor, mask: Tensor, *, gamma: float = 2.0, alpha: float = 0.75) -> Tensor:
    """Return the mean focal loss, −α_t (1 − p_t)^γ log p_t.

    Parameters
    ----------
    logits, mask : Tensor
        Of one shape; ``mask`` is 1 where there is a crack, else 0.
    gamma : float
        How little a value counts that is right already; 0 is the cross entropy.
    alpha : float
        Weight of cracks, against 1 − alpha of the rest, which is many times larger.

    References
    ----------
    Lin, Goyal, Girshick, He, Dollár, Focal Loss for Dense Object Detection, ICCV 2017, eq. 5.
    """
    entropy = functional.binary_cross_entropy_with_logits(logits, mask, reduction="none")
    wrong = torch.sigmoid(torch.where(mask > 0, -logits, logits))  # 1 − p_t
    weight = alpha * mask + (1 - alpha) * (1 - mask)
    return (weight * wrong.pow(gamma) * entropy).mean()


def ssim(
    a: Tensor,
    b: Tensor,
    *,
    value_range: float,
    window: int = 11,
    sigma: float = 1.5,
    step: int = 1,
) -> Tensor:
    """Return the mean structural similarity of maps, 1 for equal ones.

    Parameters
    ----------
    a, b : Tensor (n, channels, frames, places)
    value_range : float
        The range of values L; stabilising constants are (0.01 L)² and (0.03 L)².
    window, sigma : int, float
        Side and spread of the Gaussian window, which is laid inside the map alone.
    step : int
        Distance of the windows looked at.

    References
    ----------
    Wang, Bovik, Sheikh, Simoncelli, Image Quality Assessment, IEEE TIP 13 (2004) 600, eq. 13.
    """
    rows = _windows(a.shape[-2], window, sigma, step).to(a)
    columns = _windows(a.shape[-1], window, sigma, step).to(a).T

    def mean(values: Tensor) -> Tensor:
        # Two products of matrices: faster on CPUs than convolutions of one channel each.
        return rows @ (values @ columns)

    mean_a, mean_b = mean(a), mean(b)
    variances = mean(a * a + b * b) - mean_a.square() - mean_b.square()
    covariance = mean(a * b) - mean_a * mean_b
    c1, c2 = (_STABLE_1 * value_range) ** 2, (_STABLE_2 * value_range) ** 2
    alike = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    return (alike / ((mean_a.square() + mean_b.square() + c1) * (variances + c2))).mean()


@lru_cache(maxsize=16)
def _windows(length: int, window: int, sigma: float, step: int) -> Tensor:
    """Return a matrix (positions, length) whose rows are windows."""
    size = min(window, length)
    distance = np.arange(size) - (size - 1) / 2
    weights = np.exp(-0.5 * (distance / sigma) ** 2)
    starts = range(0, length - size + 1, step)
    matrix = np.zeros((len(starts), length))
    for row, start in enumerate(starts):
        matrix[row, start : start + size] = weights / weights.sum()
    return torch.from_numpy(matrix.astype(np.float32))
