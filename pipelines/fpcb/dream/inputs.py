"""What the networks see of a panel: evidence for kinks and the course of the bend.

The maps of the cache are curvature and its excess; from them, on the device, after the corruption
of training: the matched evidence of `kink_filter`, of a frame alone, of all frames from here on,
and for a beginning here; the bend angle; and its speed. A kink of half a degree, invisible in
any one frame, is so a signal that a small network can find.
"""

import math

import torch
from torch import Tensor, nn

from pipelines.fpcb.detection.kink_filter import KinkFilter

N_INPUTS = 5
"""Channels the networks see."""

_SECOND_DIFFERENCE = math.sqrt(math.pi / 12)
_LEAST_BEND_RAD = 1e-3
_RATE = 10.0  # of the change a frame: a bend of 180° in 60 frames comes out near 1


class Inputs(nn.Module):
    """Turn maps of the cache into what the networks see; nothing in it is trained.

    Parameters
    ----------
    kink_filter : KinkFilter
        Fitted on good training panels, of as many places as the maps.
    """

    weights: Tensor
    template: Tensor

    def __init__(self, kink_filter: KinkFilter) -> None:
        super().__init__()
        self.register_buffer("weights", torch.from_numpy(kink_filter.weights.copy()))
        self.register_buffer("template", torch.from_numpy(kink_filter.template.copy()))

    def forward(self, raw: Tensor) -> Tensor:
        """Return inputs (n, N_INPUTS, n_frames, places) of maps (n, 2, n_frames, places)."""
        excess, bend = raw[:, 0], raw[:, 1].mean(dim=-1)
        evidence = (excess / noise_rad(excess)[:, None, None]) @ self.weights
        strength = torch.asinh(torch.stack([evidence, *_over_time(evidence, bend)], dim=1) / 2)
        rate = torch.diff(bend, dim=1, prepend=bend[:, :1]) * _RATE
        course = torch.stack([bend, rate], dim=1)[..., None] / math.pi
        return torch.cat([strength, course.expand(-1, -1, -1, raw.shape[-1])], dim=1)


def noise_rad(excess: Tensor) -> Tensor:
    """Noise of each panel's excess curvature (n,), from second differences in time."""
    second = excess.diff(n=2, dim=1)
    return (second.abs().mean(dim=(1, 2)) * _SECOND_DIFFERENCE).clamp_min(1e-6)


def _over_time(evidence: Tensor, bend: Tensor) -> tuple[Tensor, Tensor]:
    """`kink_filter.after` and `kink_filter.onset`, on the device."""
    theta = bend.abs().clamp_min(_LEAST_BEND_RAD)[..., None]
    moment, square = theta * evidence, theta**2
    before, rest = moment.cumsum(dim=1)[:, :-1], square.cumsum(dim=1)[:, :-1]
    moment, square = (part.flip(1).cumsum(dim=1).flip(1) for part in (moment, square))
    change = moment[:, 1:] / square[:, 1:] - before / rest
    change = change / (1 / square[:, 1:] + 1 / rest).sqrt()
    onset = torch.cat([torch.zeros_like(change[:, :1]), change], dim=1)
    return moment / square.sqrt(), onset
