"""Simulated cracks: what corrupts good panels while DREAM learns, drawn and applied on the device.

A crack is a hinge, local in place, that opens with the bend from its frame on; the bend itself may
jolt forward, or stick and snap, as it happens. Its angle is drawn so that the evidence for it,
the hinge's matched filter over the frames left, runs evenly in logarithm from barely visible to
broken, whatever the noise of the panel: networks that have seen no broken board may pass it.
"""

import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from pipelines.fpcb.dream.config import CrackConfig
from pipelines.fpcb.dream.inputs import Inputs, noise_rad

MASK_PLACES = 2.5
"""Places to either side of a crack that count as damaged."""

_PLACES = (0.12, 0.88)  # shares of the length that have evidence
_PHASES = (0.0, 0.95)  # of the run in which a crack may begin
_WIDTHS = (0.006, 0.045)  # standard deviation of a hinge, shares of the length
_LARGEST_RAD = math.radians(70)


@dataclass(frozen=True, eq=False)
class Cracks:
    """Cracks of a batch; tensors (n,), on the device.

    ``frame`` is the first with the crack, ``place`` a share of the length, ``width`` one as well,
    ``strength`` what the evidence comes to, ``jolt`` the share of π by which the bend leaps
    ahead (negative: stays behind), fading over ``fade`` frames. ``corrupted`` is 0 or 1.
    """

    corrupted: Tensor
    frame: Tensor
    place: Tensor
    width: Tensor
    strength: Tensor
    jolt: Tensor
    fade: Tensor

    def __getitem__(self, rows: slice | Tensor) -> "Cracks":
        return Cracks(**{part.name: getattr(self, part.name)[rows] for part in fields(self)})


def draw_cracks(
    n: int,
    n_frames: int,
    config: CrackConfig,
    generator: torch.Generator,
    device: torch.device | str = "cpu",
) -> Cracks:
    """Draw the cracks of ``n`` panels from ``generator``, which lives on ``device``."""
    u = torch.rand(9, n, generator=generator, device=device)
    frame = _PHASES[0] + (_PHASES[1] - _PHASES[0]) * u[1]
    frame = (frame * (n_frames - 1)).round() * (u[2] >= config.from_start)
    low, high = (math.log(end) for end in config.strength)
    jolts = (u[6] < config.jolts) * (0.01 + 0.09 * u[7]) * torch.sign(u[8] - 0.5)
    return Cracks(
        corrupted=(u[0] < config.corrupted).float(),
        frame=frame,
        place=_PLACES[0] + (_PLACES[1] - _PLACES[0]) * u[3],
        width=torch.exp(math.log(_WIDTHS[0]) + math.log(_WIDTHS[1] / _WIDTHS[0]) * u[4]),
        strength=torch.exp(low + (high - low) * u[5]),
        jolt=jolts,
        fade=3 + 12 * u[7],
    )


def corrupt(raw: Tensor, cracks: Cracks, inputs: Inputs) -> tuple[Tensor, Tensor]:
    """Crack good panels.

    Parameters
    ----------
    raw : Tensor (n, 2, n_frames, places)
        Excess curvature and curvature, rad, as the cache has them.
    inputs : Inputs
        Whose filter says how much evidence a hinge leaves.

    Returns
    -------
    cracked : Tensor, shape of ``raw``
    mask : Tensor (n, 1, n_frames, places)
        1 where the crack is.
    """
    n_frames, places = raw.shape[2:]
    frames = torch.arange(n_frames, device=raw.device)
    since = frames - cracks.frame[:, None]
    there = (since >= 0) * cracks.corrupted[:, None]
    excess, bend = raw[:, 0], raw[:, 1].mean(dim=-1)

    hinge = _hinge(cracks, inputs)
    signal = (hinge @ inputs.weights).amax(dim=1).clamp_min(1e-3) / noise_rad(excess)
    square = ((bend * (since >= 0)) ** 2).sum(dim=1).clamp_min(1e-6)
    per_bend = cracks.strength / (signal * square.sqrt())
    largest = bend.abs().amax(dim=1).clamp_min(0.1)
    per_bend = torch.minimum(per_bend, _LARGEST_RAD / largest)
    opening = there * bend * per_bend[:, None]
    shape = opening[..., None] * hinge[:, None]

    leap = math.pi * cracks.jolt[:, None] * torch.exp(-since.clamp_min(0) / cracks.fade[:, None])
    moved = (leap * there * torch.sign(bend))[..., None]
    cracked = torch.stack([excess + shape, raw[:, 1] + shape + moved], dim=1)

    distance = (torch.arange(places, device=raw.device) + 0.5) / places - cracks.place[:, None]
    near = (distance.abs() * places <= MASK_PLACES).float()
    return cracked, (there[..., None] * near[:, None])[:, None]


def _hinge(cracks: Cracks, inputs: Inputs) -> Tensor:
    """Excess of a hinge of 1 rad (n, places): sharp kinks, spread by the hinge's width."""
    places = len(inputs.template)
    centre = (torch.arange(places, device=cracks.place.device) + 0.5) / places
    spread = cracks.width[:, None].clamp_min(0.5 / places)
    share = torch.exp(-0.5 * ((centre - cracks.place[:, None]) / spread) ** 2)
    return (share / share.sum(dim=1, keepdim=True)) @ inputs.template
