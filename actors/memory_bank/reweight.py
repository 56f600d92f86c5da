"""The panel score of PatchCore (Roth et al., CVPR 2022, equations 6 and 7)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from actors.memory_bank.index import MemoryBank
from cluster.errors import InputError

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]


class PanelScores(NamedTuple):
    """Scores of panels.

    Attributes
    ----------
    score : ndarray (n_panels,)
        Equation 7.
    distance : ndarray (n_panels,)
        s*, equation 6: the largest distance of a patch to the bank.
    patch : ndarray (n_panels,)
        The panel's patch m_test that has it (the first one of several).
    """

    score: FloatArray
    distance: FloatArray
    patch: IntArray


def neighbourhoods(bank: MemoryBank, neighbours: int) -> IntArray:
    """Return the rows N_b (size, b) of the bank nearest to each of its rows, itself among them."""
    if not 1 <= neighbours <= bank.size:
        raise InputError(
            "neighbours of a memory-bank row",
            "number",
            f"1 to {bank.size}, the size of the bank",
            neighbours,
            "Ask for fewer or build a larger bank.",
        )
    return bank.search(bank.vectors(), neighbours)[1]


def panel_scores(
    patches: FloatArray,
    distance: FloatArray,
    nearest: IntArray,
    bank: FloatArray,
    neighbourhood: IntArray,
    offsets: IntArray | None = None,
) -> PanelScores:
    """Score panels from the distances of their patches to the bank.

    With m_test the patch that is farthest from the bank, m* its nearest row of the bank and N_b(m*)
    the b rows nearest to m* (itself among them)::

        s* = ‖m_test − m*‖                                                            (6)
        s  = (1 − exp ‖m_test − m*‖ / Σ over m in N_b(m*) of exp ‖m_test − m‖) · s*   (7)

    A patch far from m* but as far from all rows around m* keeps its score; one that lies near
    other rows than m*'s neighbours would be judged less. With b = 1 there is no neighbourhood to
    weigh with, and the score is s*.

    Parameters
    ----------
    patches : ndarray (n_panels, p, d), or (n_patches, d) with ``offsets``
    distance, nearest : ndarray (n_panels, p), or (n_patches,) with ``offsets``
        Distance to the nearest row of the bank, and that row.
    bank : ndarray (size, d)
    neighbourhood : ndarray (size, b)
        From `neighbourhoods`.
    offsets : ndarray (n_panels + 1,), optional
        Where each panel's patches begin and end; each panel has at least one.
    """
    flat, flat_distance, flat_nearest = _bags(patches, distance, nearest)
    if offsets is None:
        offsets = np.arange(distance.shape[0] + 1, dtype=np.int64) * distance.shape[1]
    if (np.diff(offsets) < 1).any():
        empty = int(np.argmax(np.diff(offsets) < 1))
        raise InputError(
            "patches", f"panel {empty} has none", fix="Drop that panel, or give its patches."
        )
    farthest = np.maximum.reduceat(flat_distance, offsets[:-1])
    # The first patch at the maximum: of all that reach it, the lowest row in each panel.
    panel = np.repeat(np.arange(len(farthest)), np.diff(offsets))
    reaches = np.flatnonzero(flat_distance == farthest[panel])
    chosen = reaches[np.searchsorted(reaches, offsets[:-1])]
    around = bank[neighbourhood[flat_nearest[chosen]]]
    exponent = np.linalg.norm(around - flat[chosen][:, None], axis=2)
    weight = _weight(farthest, exponent) if neighbourhood.shape[1] > 1 else np.ones_like(farthest)
    return PanelScores(
        (weight * farthest).astype(np.float32), farthest, (chosen - offsets[:-1]).astype(np.int64)
    )


def _bags(
    patches: FloatArray, distance: FloatArray, nearest: IntArray
) -> tuple[FloatArray, FloatArray, IntArray]:
    return patches.reshape(-1, patches.shape[-1]), distance.ravel(), nearest.ravel()


def _weight(own: FloatArray, around: FloatArray) -> FloatArray:
    """Return 1 − exp(own) / Σ exp(around); the largest exponent is taken out, as exp(89) is ∞."""
    largest = around.max(axis=1)
    total = np.exp(around - largest[:, None]).sum(axis=1)
    return 1 - np.exp(own - largest) / total
