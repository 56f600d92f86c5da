"""The two maps that detectors read, and the filter fitted on them."""

from typing import Any

import numpy as np
import numpy.typing as npt

from cluster.errors import InputError
from pipelines.fpcb.dataset import DataSet
from pipelines.fpcb.detection.cached import MapReader, Panels, read_piece
from pipelines.fpcb.detection.kink_filter import Floats, KinkFilter, fit_filter

MAPS = ("curvature_excess", "curvature")
"""Map columns read from the cache, in this order."""

_FILTER_PANELS = 4_000


def split_maps(maps: npt.NDArray[Any]) -> tuple[Floats, Floats]:
    """Return excess curvature (n, n_frames, places) and bend (n, n_frames), rad, of ``MAPS``."""
    excess = maps[:, 0].astype(np.float32)
    return excess, maps[:, 1].astype(np.float32).mean(axis=-1)


def filter_of(data: DataSet, panels: Panels) -> KinkFilter:
    """Fit the filter on a share of good panels, the same share of every file.

    Raises
    ------
    InputError
        With fewer than 2 panels.
    """
    some = panels.first(_FILTER_PANELS)
    if some.size < 2:
        raise InputError(str(data.store), "too few good panels", "2 or more", some.size)
    reader = MapReader(MAPS, panels.n_frames)
    parts = [split_maps(read_piece(some.store, piece, reader)) for piece in some.pieces]
    excess, bend = (np.concatenate(part) for part in zip(*parts, strict=True))
    return fit_filter(excess, bend, data.about["features_of"]["curvature_window_places"])
