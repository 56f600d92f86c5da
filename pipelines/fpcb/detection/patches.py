"""PatchCore's patches: what a panel shows over a window of frames, as a vector.

Roth et al., Towards Total Recall in Industrial Anomaly Detection, CVPR 2022 (arXiv 2106.08265),
take neighbourhoods of a pretrained network's features. A panel's are the evidence for a kink over
the frames from the window on, place by place, and how the board bends within the window. Evidence
is shrunk towards 0: in some thirty dimensions of unit noise the distance to the nearest
neighbour is nearly all noise, and a kink of four standard deviations would drown in it.
"""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from cluster.errors import InputError
from pipelines.fpcb.detection.kink_filter import KinkFilter, after

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class PatchCoreConfig:
    """How a panel becomes patches, and good patches a memory bank."""

    stride_frames: int = field(
        default=5, metadata={"help": "Frames of a window, and from one window to the next."}
    )
    pooled_places: int = field(
        default=2, metadata={"help": "Neighbouring places of which a patch keeps the strongest."}
    )
    shrink: float = field(
        default=2.0,
        metadata={"help": "Standard deviations by which evidence is shrunk towards 0."},
    )
    bend_weight: float = field(
        default=4.0, metadata={"help": "Weight of the bend, of which 180° count as 1."}
    )
    coreset_share: float = field(
        default=0.01, metadata={"help": "Share of good patches that the memory bank keeps."}
    )
    least_coreset: int = field(
        default=1_000, metadata={"help": "Patches that the memory bank keeps, where there are such"}
    )
    neighbours: int = field(
        default=9, metadata={"help": "Neighbours that weigh a panel's score; 1: none."}
    )
    bank_kind: str = field(
        default="auto", metadata={"help": "Search: flat (exact), ivf, hnsw, or auto by size."}
    )
    bank_actors: int = field(
        default=1, metadata={"help": "Actors over which the memory bank is spread."}
    )

    def __post_init__(self) -> None:
        for name in ("stride_frames", "pooled_places", "least_coreset", "neighbours",
                     "bank_actors"):  # fmt: skip
            if (value := getattr(self, name)) < 1:
                raise InputError(f"--{name.replace('_', '-')}", "too few", "1 or more", value)
        for name in ("shrink", "bend_weight"):
            if not 0 <= (value := getattr(self, name)) < np.inf:
                raise InputError(f"--{name.replace('_', '-')}", "out of range", "0 or more", value)
        if not 0 < self.coreset_share <= 1:
            raise InputError("--coreset-share", "no share", "above 0, at most 1",
                             self.coreset_share)  # fmt: skip
        if self.bank_kind not in (known := ("auto", "flat", "ivf", "hnsw", "cuml")):
            raise InputError("--bank-kind", "unknown", " or ".join(known), self.bank_kind)


def starts(n_frames: int, config: PatchCoreConfig) -> npt.NDArray[np.int64]:
    """First frame of each window."""
    return np.arange(0, n_frames, config.stride_frames)


def make_patches(
    evidence: Floats, bend_rad: Floats, kink_filter: KinkFilter, config: PatchCoreConfig
) -> Floats:
    """Return the patches of panels (n, windows, dim).

    Parameters
    ----------
    evidence : ndarray (n, n_frames, places)
        `KinkFilter.evidence`.
    bend_rad : ndarray (n, n_frames)
    """
    first = starts(bend_rad.shape[1], config)
    last = np.minimum(first + config.stride_frames, bend_rad.shape[1]) - 1
    found = after(evidence, bend_rad)[:, first, kink_filter.inside]
    strongest = _strongest(found, config.pooled_places)
    shrunk = np.sign(strongest) * np.maximum(np.abs(strongest) - np.float32(config.shrink), 0)
    bend = np.abs(bend_rad)
    rate = (bend[:, last] - bend[:, first]) * (bend.shape[1] / config.stride_frames)
    course = np.stack([bend[:, first], rate], axis=2) * np.float32(config.bend_weight / np.pi)
    return np.concatenate([shrunk, course], axis=2).astype(np.float32)


def departures(
    patches: Floats,
    nearest: Floats,
    n_frames: int,
    kink_filter: KinkFilter,
    config: PatchCoreConfig,
) -> Floats:
    """Where panels depart from their nearest good patches (n, n_frames, places).

    Parameters
    ----------
    patches, nearest : ndarray (n, windows, dim)
        Patches and the patches of the bank closest to them.
    """
    inside = range(kink_filter.places)[kink_filter.inside]
    gap = np.abs(patches - nearest)[..., :-2]
    places = np.repeat(gap, config.pooled_places, axis=2)[..., : len(inside)]
    maps = np.zeros((len(patches), n_frames, kink_filter.places), np.float32)
    frames = np.repeat(places, config.stride_frames, axis=1)[:, :n_frames]
    maps[:, :, kink_filter.inside] = frames
    return maps


def _strongest(found: Floats, pooled: int) -> Floats:
    """Of each ``pooled`` neighbouring places the value farthest from 0."""
    missing = -found.shape[2] % pooled
    if missing:
        found = np.pad(found, ((0, 0), (0, 0), (0, missing)), mode="edge")
    groups = found.reshape(*found.shape[:2], -1, pooled)
    which = np.abs(groups).argmax(axis=3, keepdims=True)
    return np.asarray(np.take_along_axis(groups, which, axis=3)[..., 0])
