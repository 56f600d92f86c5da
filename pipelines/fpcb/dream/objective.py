"""What DREAM minimises and how it is judged on validation, for each variant."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from pipelines.fpcb.detection.cached import FrameReader, MapReader, Reader
from pipelines.fpcb.detection.kink_filter import KinkFilter
from pipelines.fpcb.detection.maps import MAPS
from pipelines.fpcb.dream.config import CrackConfig
from pipelines.fpcb.dream.cracks import corrupt, draw_cracks
from pipelines.fpcb.dream.inputs import N_INPUTS, Inputs
from pipelines.fpcb.dream.losses import focal, ssim
from pipelines.fpcb.dream.networks import NetworkPair
from pipelines.fpcb.dream.tabular import (
    Scale,
    ShiftDrawer,
    TabularPair,
    tabular_loss,
)
from pipelines.fpcb.dream.train_config import ShiftConfig

Half = torch.dtype | None  # the narrow type of mixed precision

_SSIM_RANGE = 4.0  # of normalised maps, whose noise is about 1
_SSIM_STEP = 2
_BUFFERED_PANELS = 512
_BUFFERED_ROWS = 16_384


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Of the terms of the map loss; the squared error has weight 1."""

    ssim: float
    focal: float


class Objective(Protocol):
    """One variant of DREAM."""

    @property
    def reader(self) -> Reader:
        """What a training item is."""

    @property
    def validation_reader(self) -> Reader:
        """What a validation panel is."""

    @property
    def items_per_panel(self) -> int:
        """Training items of a panel."""

    @property
    def buffer(self) -> int:
        """Items that a lane draws its part of a batch from."""

    def networks(self) -> nn.Module:
        """Make untrained networks."""

    def loss(
        self,
        networks: nn.Module,
        items: Tensor,
        generator: torch.Generator,
        half: torch.dtype | None,
    ) -> Tensor:
        """Return the mean loss of items with cracks drawn from ``generator``."""

    def judge(
        self, networks: nn.Module, panels: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the loss, and of each panel its score and whether it has a simulated crack."""


@dataclass(frozen=True, kw_only=True)
class MapObjective:
    """``variant="map"``: frame × place maps."""

    n_frames: int
    width: int
    kink_filter: KinkFilter
    cracks: CrackConfig
    weights: Weights

    items_per_panel = 1
    buffer = _BUFFERED_PANELS

    @property
    def reader(self) -> Reader:
        """A training item is a panel."""
        return MapReader(tuple(MAPS), self.n_frames)

    @property
    def validation_reader(self) -> Reader:
        """The same."""
        return self.reader

    def networks(self) -> nn.Module:
        """Make untrained networks."""
        return NetworkPair(Inputs(self.kink_filter), N_INPUTS, self.width)

    def loss(
        self,
        networks: nn.Module,
        items: Tensor,
        generator: torch.Generator,
        half: torch.dtype | None,
    ) -> Tensor:
        """Return squared error + SSIM of the clean reconstruction + focal loss of the mask."""
        return self._pass(networks, items, generator, half)[0]

    def judge(
        self, networks: nn.Module, panels: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Score each panel by the largest logit of its map."""
        loss, logits, mask = self._pass(networks, panels, generator, None)
        return loss, logits.flatten(1).amax(dim=1), mask.flatten(1).amax(dim=1)

    def _pass(
        self,
        networks: nn.Module,
        items: Tensor,
        generator: torch.Generator,
        half: torch.dtype | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        assert isinstance(networks, NetworkPair)
        raw = items.float()
        inputs = networks.inputs
        with torch.no_grad():
            drawn = draw_cracks(len(raw), raw.shape[2], self.cracks, generator, raw.device)
            bad, mask = corrupt(raw, drawn, inputs)
            clean, seen = inputs(raw), inputs(bad)
        with mixed(raw.device, half):
            rebuilt, logits = networks(seen)
        rebuilt, logits = rebuilt.float(), logits.float()
        alike = ssim(rebuilt, clean, value_range=_SSIM_RANGE, step=_SSIM_STEP)
        loss = (rebuilt - clean).square().mean() + self.weights.ssim * (1 - alike)
        return loss + self.weights.focal * focal(logits, mask), logits, mask


@dataclass(frozen=True, kw_only=True)
class TabularObjective:
    """``variant="tabular"``: features of single frames."""

    n_frames: int
    scale: Scale
    shifts: ShiftConfig

    buffer = _BUFFERED_ROWS

    @property
    def reader(self) -> Reader:
        """A training item is a frame."""
        return FrameReader(self.scale.columns, self.n_frames)

    @property
    def validation_reader(self) -> Reader:
        """A validation panel keeps its frames together."""
        return FrameReader(self.scale.columns, self.n_frames, flat=False)

    @property
    def items_per_panel(self) -> int:
        """Frames of a panel."""
        return self.n_frames

    def networks(self) -> nn.Module:
        """Make untrained networks."""
        return TabularPair(self.scale)

    def loss(
        self,
        networks: nn.Module,
        items: Tensor,
        generator: torch.Generator,
        half: torch.dtype | None,
    ) -> Tensor:
        """Return squared error of the clean reconstruction + focal loss of the shifts."""
        assert isinstance(networks, TabularPair)
        drawer = ShiftDrawer(self.scale.columns, self.shifts, items.device)
        with mixed(items.device, half):
            return tabular_loss(networks, items, drawer, generator)

    def judge(
        self, networks: nn.Module, panels: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Score each panel by its largest logit; a crack shifts all frames from its own on."""
        assert isinstance(networks, TabularPair)
        n, n_frames, width = panels.shape
        drawer = ShiftDrawer(self.scale.columns, self.shifts, panels.device)
        shifts = drawer.draw(n, generator)
        start = torch.rand(n, generator=generator, device=panels.device) * n_frames
        after = torch.arange(n_frames, device=panels.device) >= start[:, None].floor()
        clean = networks.standardise(panels)
        rebuilt, logits = networks(
            (clean + shifts.amount[:, None] * after[..., None]).reshape(-1, width)
        )
        mask = shifts.mask[:, None] * after
        loss = (rebuilt - clean.reshape(-1, width)).square().mean() + focal(
            logits, mask.reshape(-1)
        )
        return loss, logits.reshape(n, n_frames).amax(dim=1), shifts.mask


def mixed(device: torch.device, half: torch.dtype | None) -> AbstractContextManager[object]:
    """Return a block whose products run in ``half`` precision, if any."""
    return torch.autocast(device.type, half) if half is not None else nullcontext()
