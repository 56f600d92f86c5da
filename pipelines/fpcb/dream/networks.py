"""The two networks of DREAM on frame × place maps.

After DRAEM (Zavrtanik, Kristan, Skočaj, ICCV 2021, arXiv 2108.07610). What differs:

- Sizes: maps of 60 × 64 need no image network. Blocks of 2 × 2 values become channels first, so
  that no convolution but the last works at full resolution.
- GroupNorm for BatchNorm: the result does not depend on who shares a batch.
- The convolutions of the deepest level span 5 frames of 8 each: a kink that is hardly visible in
  one frame is averaged over the frames that follow.
- The discriminative network ends in one logit a place, not two.

As in the paper the reconstructive network has no skip connections, so that a crack cannot pass
around its narrow middle, and the discriminative one has them.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from cluster.errors import InputError
from pipelines.fpcb.dream.inputs import Inputs

_GROUPS = 4
_STRIDE = 8  # frames and places to one of the deepest level


class NetworkPair(nn.Module):
    """Reconstructive and discriminative network, and what turns maps of the cache into inputs.

    Parameters
    ----------
    inputs : Inputs
        Has no parameters of its own to train.
    channels : int
        Of what ``inputs`` returns.
    width : int
        Channels at half resolution; doubled at each of two further levels.

    Raises
    ------
    InputError
        When ``width`` is no multiple of 4.
    """

    def __init__(self, inputs: Inputs, channels: int, width: int) -> None:
        super().__init__()
        if width < _GROUPS or width % _GROUPS:
            raise InputError("--width", "not usable", f"a multiple of {_GROUPS}", width)
        self.inputs = inputs
        self.reconstructive = UNet(channels, channels, width, skip=False)
        self.discriminative = UNet(2 * channels, 1, width, skip=True)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # faster on CPUs

    def forward(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Reconstruct inputs and say where they are anomalous.

        Parameters
        ----------
        maps : Tensor (n, channels, frames, places)
            From ``inputs``.

        Returns
        -------
        reconstructed : Tensor (n, channels, frames, places)
        logits : Tensor (n, 1, frames, places)
        """
        height, width = maps.shape[-2:]
        padding = (0, -width % _STRIDE, 0, -height % _STRIDE)
        # Edge values go on: zeros beyond the last frame would look like a sudden stop.
        padded = functional.pad(maps, padding, mode="replicate") if any(padding) else maps
        padded = padded.contiguous(memory_format=torch.channels_last)
        reconstructed = self.reconstructive(padded)
        logits = self.discriminative(torch.cat((padded, reconstructed), dim=1))
        return reconstructed[..., :height, :width], logits[..., :height, :width]


class UNet(nn.Module):
    """Three levels at 1/2, 1/4 and 1/8 of the resolution, down and up again.

    Parameters
    ----------
    inputs, outputs : int
        Channels.
    width : int
        Channels of the first level.
    skip : bool
        Whether each level also sees what came down at its resolution, and the last convolution the
        input itself.
    """

    def __init__(self, inputs: int, outputs: int, width: int, *, skip: bool) -> None:
        super().__init__()
        self.skip = skip
        self.first = _block(4 * inputs, width)
        self.down1 = _block(width, 2 * width, stride=2)
        self.down2 = _block(2 * width, 4 * width, stride=2)
        self.deep = _block(4 * width, 4 * width, kernel=(5, 3))
        self.up2 = _block(4 * width, 2 * width)
        self.join2 = _block(4 * width, 2 * width) if skip else nn.Identity()
        self.up1 = _block(2 * width, width)
        self.join1 = _block(2 * width, width) if skip else nn.Identity()
        self.last = nn.Conv2d(width, 4 * outputs, 3, padding=1)
        self.fine = nn.Conv2d(inputs + outputs, outputs, 3, padding=1) if skip else None

    def forward(self, maps: Tensor) -> Tensor:
        """Map (n, inputs, frames, places), multiples of 8, to (n, outputs, frames, places)."""
        half = self.first(functional.pixel_unshuffle(maps, 2))
        quarter = self.down1(half)
        deep = self.deep(self.down2(quarter))
        up = functional.interpolate(self.up2(deep), scale_factor=2, mode="nearest")
        up = self.join2(torch.cat((up, quarter), dim=1) if self.skip else up)
        up = functional.interpolate(self.up1(up), scale_factor=2, mode="nearest")
        up = self.join1(torch.cat((up, half), dim=1) if self.skip else up)
        out = functional.pixel_shuffle(self.last(up), 2)
        return out if self.fine is None else out + self.fine(torch.cat((out, maps), dim=1))


def _block(
    inputs: int, outputs: int, kernel: tuple[int, int] = (3, 3), stride: int = 1
) -> nn.Module:
    padding = (kernel[0] // 2, kernel[1] // 2)
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False),
        nn.GroupNorm(_GROUPS, outputs),
        nn.ReLU(inplace=True),
    )
