"""Panels as a tracker sees them: points along the board, frame by frame."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

# Points of a bundle are whole pixels, of an image that int16 holds.
LARGEST_PIXEL = int(np.iinfo(np.int16).max)


@dataclass(frozen=True, eq=False)
class PanelBatch:
    """Panels of one number of frames, padded to the most points of any of them.

    Attributes
    ----------
    number : ndarray (n,), int64
        Names a panel within its data set.
    points : ndarray (n, 2, n_frames, n_places), int16, px
        x and y of each point; index rises along the board from its clamped end. Zero from
        ``n_points`` on.
    n_points : ndarray (n,), int32
    fps : ndarray (n,), float64, 1/s
    metres_per_pixel : ndarray (n,), float64; NaN where it is not known
    """

    number: npt.NDArray[np.int64]
    points: npt.NDArray[np.int16]
    n_points: npt.NDArray[np.int32]
    fps: npt.NDArray[np.float64]
    metres_per_pixel: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return int(self.number.size)

    @property
    def n_frames(self) -> int:
        """Frames of every panel."""
        return int(self.points.shape[2])
