"""DREAM on the features of single frames: `variant="tabular"`.

The classic pair: an autoencoder 64-32-16-8-16-32-64 rebuilds a frame's features, a discriminator
with 64 hidden units compares them with the original. Simulated cracks shift groups of features the
way a crack does: a kink raises curvature and strain, a jolt raises accelerations.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from cluster.errors import InputError
from pipelines.fpcb.detection.cached import FrameReader, Panels, read_piece
from pipelines.fpcb.dream.losses import focal
from pipelines.fpcb.dream.train_config import ShiftConfig
from pipelines.fpcb.features.table import names

_SI = ("_m", "_m_s", "_m_s2")
_KINK = ("curvature", "concentration", "participation", "strain", "excess", "kink", "change")
_JOLT = ("acceleration", "impact", "rate2", "jump")
_HIDDEN, _LATENT = (64, 32, 16), 8
_LIMIT = 12.0  # standard deviations: a spike of bad light must not drown a batch


def camera_columns() -> tuple[str, ...]:
    """Return the frame features that need no scale: SI units are unknown for some panels."""
    return tuple(name for name in names("frame") if not name.endswith(_SI))


@dataclass(frozen=True)
class Scale:
    """Columns that vary, with their mean and standard deviation among good training frames."""

    columns: tuple[str, ...]
    mean: npt.NDArray[np.float32]
    std: npt.NDArray[np.float32]


def measure_scale(panels: Panels, columns: Sequence[str]) -> Scale:
    """Find mean and spread in one pass, a row group at a time; constant columns are dropped.

    Chan, Golub, LeVeque, Am. Stat. 37 (1983) 242: parts are joined by their means.

    Raises
    ------
    InputError
        For NaN, or when no column varies.
    """
    reader = FrameReader(tuple(columns), panels.n_frames)
    count, mean, squares = 0, np.zeros(len(columns)), np.zeros(len(columns))
    for piece in panels.pieces:
        rows = read_piece(panels.store, piece, reader).astype(np.float64)
        own = rows.mean(axis=0)
        gap = own - mean
        squares += ((rows - own) ** 2).sum(axis=0) + gap**2 * count * len(rows) / (
            count + len(rows)
        )
        mean += gap * len(rows) / (count + len(rows))
        count += len(rows)
    std = np.sqrt(squares / count)
    varies = std > 1e-9 * np.maximum(np.abs(mean), 1e-9)
    if not varies.any():
        raise InputError(str(panels.store), "features of frames", "some that vary", "constants")
    kept = tuple(name for name, good in zip(columns, varies, strict=True) if good)
    return Scale(kept, mean[varies].astype(np.float32), std[varies].astype(np.float32))


class TabularPair(nn.Module):
    """Autoencoder and discriminator on raw features; they are standardised inside."""

    mean: Tensor
    inverse_std: Tensor

    def __init__(self, scale: Scale) -> None:
        super().__init__()
        width = len(scale.columns)
        self.register_buffer("mean", torch.from_numpy(scale.mean.copy()))
        self.register_buffer("inverse_std", torch.from_numpy(1 / scale.std))
        sizes = (width, *_HIDDEN, _LATENT)
        self.reconstructive = nn.Sequential(_layers(sizes), nn.ReLU(), _layers(sizes[::-1]))
        self.discriminative = _layers((2 * width, _HIDDEN[0], 1))

    def standardise(self, rows: Tensor) -> Tensor:
        """Bring raw features (n, columns) to mean 0 and spread 1."""
        return ((rows - self.mean) * self.inverse_std).clamp_(-_LIMIT, _LIMIT)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return the reconstruction (n, columns) and logits (n,) of standardised rows."""
        rebuilt = self.reconstructive(z)
        return rebuilt, self.discriminative(torch.cat((z, rebuilt), dim=1)).squeeze(1)


def _layers(sizes: Sequence[int]) -> nn.Sequential:
    parts: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        parts += [nn.Linear(inputs, outputs), nn.ReLU(inplace=True)]
    return nn.Sequential(*parts[:-1])


@dataclass(frozen=True)
class Shifts:
    """How each of n simulated cracks shifts each column; zeros for rows left alone."""

    amount: Tensor

    @property
    def mask(self) -> Tensor:
        """1 for shifted rows (n,)."""
        return self.amount.sum(dim=1).gt(0).float()


class ShiftDrawer:
    """Draws simulated cracks for columns of given names.

    Parameters
    ----------
    columns : sequence of str
    config : ShiftConfig
    device : torch.device
    """

    def __init__(self, columns: Sequence[str], config: ShiftConfig, device: torch.device) -> None:
        kink = [_is_size(name) and any(word in name for word in _KINK) for name in columns]
        jolt = [_is_size(name) and any(word in name for word in _JOLT) for name in columns]
        pattern = torch.tensor([kink, jolt, [a or b for a, b in zip(kink, jolt, strict=True)]])
        self._patterns = pattern.float().to(device)
        self._config, self._device = config, device

    def draw(self, n: int, generator: torch.Generator) -> Shifts:
        """Draw n cracks: a group of columns, a random part of it, a severity."""
        config, device = self._config, self._device
        u = torch.rand(4, n, generator=generator, device=device)
        ratio = math.log(config.shift_max / config.shift_min)
        severity = config.shift_min * torch.exp(ratio * u[0]) * (u[1] < config.shifted_share)
        group = self._patterns[(u[2] * len(self._patterns)).long()]
        # A column takes between none and twice its share; the weaker the crack the fewer show it.
        part = torch.rand(group.shape, generator=generator, device=device)
        return Shifts(group * severity[:, None] * (2 * part - (0.5 + u[3][:, None])).clamp_(min=0))


def _is_size(name: str) -> bool:
    return not name.endswith(("_place", "_lean"))


def tabular_loss(
    pair: TabularPair, rows: Tensor, drawer: ShiftDrawer, generator: torch.Generator
) -> Tensor:
    """Return the squared error of the clean reconstruction plus the focal loss of the shifts."""
    clean = pair.standardise(rows)
    shifts = drawer.draw(len(rows), generator)
    rebuilt, logits = pair(clean + shifts.amount)
    return (rebuilt.float() - clean).square().mean() + focal(logits.float(), shifts.mask)
