"""The panel score of PatchCore (Roth et al., CVPR 2022, equations 6 and 7)."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from cluster.errors import InputError

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]


class Bank(Protocol):
    """A memory bank, here or in actors."""

    def search(self, queries: npt.ArrayLike, k: int) -> tuple[FloatArray, IntArray]:
        """Return distances and indices (n, k) of the nearest patches."""

    def reconstruct(self, index: npt.ArrayLike) -> FloatArray:
        """Return the patches with these indices."""


def panel_scores(
    patches: FloatArray, bank: Bank, neighbours: int, offsets: IntArray | None = None
) -> FloatArray:
    """Score panels, each a bag of patches.

    With m_test the panel's patch that is farthest from the bank (the first of several), m* its
    nearest row of the bank and N_b(m*) the b rows nearest to m*, itself among them::

        s* = ‖m_test − m*‖                                                            (6)
        s  = (1 − exp ‖m_test − m*‖ / Σ over m in N_b(m*) of exp ‖m_test − m‖) · s*   (7)

    Where m* is a rare good patch, far from other rows, the score keeps more of s*. With b = 1
    there is nothing to weigh with, and the score is s*.

    Parameters
    ----------
    patches : ndarray (n_panels, p, d), or (n_patches, d) with ``offsets``
    bank : Bank
    neighbours : int
        b, at most the size of the bank.
    offsets : ndarray (n_panels + 1,), optional
        Where each panel's patches begin and end.

    Returns
    -------
    ndarray (n_panels,), float32

    Raises
    ------
    InputError
        For a panel without patches, more neighbours than the bank has, or patches that are not
        finite.
    """
    flat = patches.reshape(-1, patches.shape[-1])
    if offsets is None:
        offsets = np.arange(len(patches) + 1, dtype=np.int64) * patches.shape[1]
    if (np.diff(offsets) < 1).any():
        empty = int(np.argmax(np.diff(offsets) < 1))
        raise InputError(
            "patches", f"panel {empty} has none", fix="Drop that panel, or give its patches."
        )
    distance, nearest = bank.search(flat, 1)
    farthest, test = _farthest(distance[:, 0], offsets)
    if neighbours == 1:
        return farthest
    # Far patches have few rows in common that are nearest to them: each is asked about once.
    star, of_panel = np.unique(nearest[test, 0], return_inverse=True)
    around = bank.reconstruct(bank.search(bank.reconstruct(star), neighbours)[1])
    apart = np.linalg.norm(around[of_panel] - flat[test][:, None], axis=2)
    return (_weight(farthest, apart) * farthest).astype(np.float32)


def _farthest(distance: FloatArray, offsets: IntArray) -> tuple[FloatArray, IntArray]:
    """Return each panel's largest distance, and the first patch that has it."""
    largest = np.maximum.reduceat(distance, offsets[:-1])
    reaches = np.flatnonzero(distance == np.repeat(largest, np.diff(offsets)))
    return largest, reaches[np.searchsorted(reaches, offsets[:-1])]


def _weight(own: FloatArray, apart: FloatArray) -> FloatArray:
    """Return 1 − exp(own) / Σ exp(apart); the largest exponent is taken out, as exp(89) is ∞."""
    largest = apart.max(axis=1)
    total = np.exp(apart - largest[:, None]).sum(axis=1)
    return 1 - np.exp(own - largest) / total
