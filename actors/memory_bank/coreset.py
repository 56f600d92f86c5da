"""Greedy k-centre coresets of patches, whole or in two rounds.

Greedy k-centre (Gonzalez 1985, Theoretical Computer Science 38; the coreset of PatchCore, Roth et
al., CVPR 2022, algorithm 1) takes the patch farthest from all centres so far, again and again. Its
covering radius is at most twice the smallest that as many centres can have.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from actors.memory_bank.checks import checked_patches
from cluster.errors import InputError
from cluster.threads import limited_threads

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

# Measured on one core with 2.5 MiB of L2, patches of 64 to 81 numbers.
_ROWS, _COLUMNS = 1024, 512  # a block of distances stays in the cache between product and minimum
_MOST = 0.9
_POOL_SHARE, _POOL_SMALLEST, _POOL_LARGEST = 32, 1024, 8192


@dataclass(frozen=True)
class Coreset:
    """Centres chosen among patches.

    Attributes
    ----------
    index : ndarray (size,), int64
        Rows of the patches, in the order in which they were taken.
    radius : float
        Covering radius: the largest distance of a patch to its nearest centre, in the space in
        which the centres were chosen (the projected one, if any). Twice the smallest possible
        radius of ``size`` centres is no less.
    """

    index: IntArray
    radius: float


def greedy_coreset(
    patches: npt.ArrayLike,
    size: int,
    *,
    seed: int | Sequence[int],
    projected_dim: int | None = None,
    first: int | None = None,
) -> Coreset:
    """Choose ``size`` patches by greedy k-centre, as one pick at a time would, but faster.

    A patch's distance to its nearest centre only falls as centres are added. So the patches that
    are farthest now are put in a pool, and picks are made among them alone for as long as the
    pool's farthest is no nearer than every patch outside was: that pick is the farthest of all.
    Only then do all patches learn of the new centres, in matrix products in place of one pass
    through memory a pick. Ties go to the lowest row. Equal to the plain loop up to rounding of
    float32 distances; exactly equal where these are exact, as for small integers.

    Parameters
    ----------
    patches : array (n, d), finite
    size : int, 1 to n
    seed : int or sequence of int
        Of the first centre and of the projection.
    projected_dim : int, optional
        Compare patches after a sparse random projection to so many numbers (Johnson and
        Lindenstrauss; as in the paper), when they have more.
    first : int, optional
        The first centre; drawn when absent.

    Raises
    ------
    InputError
        When there are no patches, or fewer than ``size``, or some are not finite.
    """
    X = checked_patches(patches)
    n = len(X)
    if not 1 <= size <= n:
        raise InputError(
            "coreset",
            "size",
            f"1 to {n}, the number of patches",
            size,
            "Ask for a smaller share or give more patches.",
        )
    rng = np.random.default_rng(seed)
    start = int(rng.integers(n)) if first is None else first
    # One thread: a product split over threads may round otherwise, and the picks with it.
    with limited_threads(1):
        if projected_dim is not None and projected_dim < X.shape[1]:
            # over a second to import: not for who only searches
            from sklearn.random_projection import SparseRandomProjection

            projection = SparseRandomProjection(
                projected_dim, dense_output=True, random_state=int(rng.integers(2**31))
            )
            X = np.ascontiguousarray(projection.fit_transform(X), dtype=np.float32)
        return _Greedy(X, start).take(size)


def merge_coresets(
    parts: Sequence[npt.ArrayLike],
    size: int,
    *,
    seed: int | Sequence[int],
    projected_dim: int | None = None,
) -> Coreset:
    """Choose ``size`` centres among those that shards have chosen: the second of two rounds.

    With r₁ the largest radius of a shard and r₂ that of this round, each patch is within r₁ + r₂
    of a centre; and no ``size`` centres reach all patches within less than r₂/2, as this round
    leaves size + 1 patches that are r₂ apart. The radius is thus at most 2 (1 + r₁/r₂) times the
    smallest possible: see `proven_factor`. Shards that take ``size`` centres each have r₁ ≤ 2 of
    the smallest, and then the factor is 4, whatever the data (Malkomes et al., "Fast distributed
    k-center clustering with outliers on massive data", NIPS 2015), against 2 in one round.

    Parameters
    ----------
    parts : sequence of arrays (n_i, d)
        Centres of each shard, by shard number: shards belong to the data, not to the workers.

    Returns
    -------
    Coreset
        Rows of all parts one after the other; ``radius`` is r₂.
    """
    return greedy_coreset(
        np.concatenate([np.asarray(part, dtype=np.float32) for part in parts]),
        size,
        seed=seed,
        projected_dim=projected_dim,
    )


def shard_size(n_shard: int, n_all: int, size: int, oversample: float = 1.0) -> int:
    """Return how many centres a shard of ``n_shard`` of all ``n_all`` patches takes.

    ``oversample`` times its share of ``size``, never more than it has. Measured on a million
    frames of panels, 10,000 centres: with the plain share, 2, 4 and 8 shards reach 1.05, 1.10 and
    1.16 times the radius of one round (mixtures: 1.02 and 1.04 with 2 and 4), and to take 1.05 to 2
    times as many, then the best of them, is no better. For the proven factor of 4, take as many
    times as there are shards. Few, large shards are best.
    """
    return min(n_shard, max(1, int(np.ceil(oversample * size * n_shard / n_all))))


def two_round_coreset(
    patches: npt.ArrayLike,
    size: int,
    *,
    seed: int,
    patches_per_shard: int,
    oversample: float = 1.0,
    projected_dim: int | None = None,
) -> Coreset:
    """Choose ``size`` centres in two rounds, one shard of rows after the other.

    What workers do side by side with shards of their own (the first round with the seed
    ``(seed, shard + 1)``, the second with ``(seed, 0)``); ``radius`` is r₁ + r₂ of
    `merge_coresets`, a bound on the covering radius.
    """
    X = checked_patches(patches)
    starts = range(0, len(X), patches_per_shard)
    chosen, radius = [], 0.0
    for shard, start in enumerate(starts):
        rows = X[start : start + patches_per_shard]
        own = greedy_coreset(
            rows,
            shard_size(len(rows), len(X), size, oversample),
            seed=(seed, shard + 1),
            projected_dim=projected_dim,
        )
        chosen.append(start + own.index)
        radius = max(radius, own.radius)
    merged = merge_coresets(
        [X[index] for index in chosen], size, seed=(seed, 0), projected_dim=projected_dim
    )
    return Coreset(np.concatenate(chosen)[merged.index], radius + merged.radius)


def proven_factor(shard_radius: float, merged_radius: float) -> float:
    """Return what the radius of two rounds is at most, as a multiple of the smallest possible."""
    if shard_radius == 0:
        return 2.0
    return 2 * (1 + shard_radius / merged_radius) if merged_radius else float("inf")


def covering_radius(patches: npt.ArrayLike, centres: npt.ArrayLike) -> float:
    """Return the largest distance of a patch (n, d) to its nearest centre (m, d)."""
    X, C = checked_patches(patches), checked_patches(centres)
    with limited_threads(1):
        greedy = _Greedy(X, 0)
        greedy.approach(C - greedy.origin, slice(None))
    return float(np.sqrt(max(greedy.nearest.max(), 0.0)))


class _Greedy:
    """Patches with their squared distance to the nearest centre that they know of.

    Distances come from ‖x‖² − 2 x·c + ‖c‖², with a patch as the origin: an offset common to all
    would cost digits, and integers stay integers.
    """

    def __init__(self, X: FloatArray, first: int) -> None:
        self.X, self.origin = X, X[first].copy()
        self.nearest = np.full(len(X), np.inf, dtype=np.float32)
        self._squares = np.empty(len(X), dtype=np.float32)
        for start in range(0, len(X), _ROWS):
            rows = X[start : start + _ROWS] - self.origin
            np.einsum("ij,ij->i", rows, rows, out=self._squares[start : start + _ROWS])
        self._first = first

    def take(self, size: int) -> Coreset:
        picks, new = [self._first], [self._first]
        pool_size = min(max(len(self.X) // _POOL_SHARE, _POOL_SMALLEST), _POOL_LARGEST)
        cut = 0.0
        # The distance at which one more centre would be taken is the covering radius.
        while len(picks) <= size and len(picks) < len(self.X):
            # A centre is taken no nearer than `cut` to those before it, so it cannot be the
            # nearest to a patch within half of that of one of them.
            moved = np.flatnonzero(self.nearest > cut / 4)
            self.approach(self.X[new] - self.origin, moved)
            self.nearest[new] = -np.inf
            pool, cut, guard = self._farthest(pool_size)
            new, radius = self._pick(pool, cut, guard, size + 1 - len(picks))
            picks += new
        if size == len(self.X):
            radius = 0.0
        return Coreset(np.array(picks[:size], dtype=np.int64), radius)

    def approach(self, centres: FloatArray, moved: IntArray | slice) -> None:
        """Let the patches ``moved`` know of ``centres``, given from the origin."""
        n, d = self.X.shape
        if not isinstance(moved, slice) and len(moved) > _MOST * n:
            moved = slice(None)  # to gather nearly all costs more than to visit all
        count = n if isinstance(moved, slice) else len(moved)
        # With a column of ones, one product gives ‖c‖² − 2 x·c.
        factors = np.hstack([-2 * centres, np.einsum("ij,ij->i", centres, centres)[:, None]])
        rows = np.ones((_ROWS, d + 1), dtype=np.float32)
        product = np.empty((_COLUMNS, _ROWS), dtype=np.float32)
        for start in range(0, count, _ROWS):
            part = slice(start, min(start + _ROWS, count))
            at = part if isinstance(moved, slice) else moved[part]
            m = len(self._squares[at])
            np.subtract(self.X[at], self.origin, out=rows[:m, :d])
            best = np.full(m, np.inf, dtype=np.float32)
            for left in range(0, len(factors), _COLUMNS):
                some = factors[left : left + _COLUMNS]
                found = np.matmul(some, rows[:m].T, out=product[: len(some), :m])
                np.minimum(best, found.min(axis=0), out=best)
            best += self._squares[at]
            self.nearest[at] = np.minimum(self.nearest[at], best)

    def _farthest(self, count: int) -> tuple[IntArray, float, int]:
        """Return the ``count`` farthest rows, sorted, and what bounds the others.

        Those are nearer than ``cut``, or as near with a row of ``guard`` or more.
        """
        n = len(self.X)
        if count >= n:
            return np.arange(n), 0.0, n
        cut = np.partition(self.nearest, n - count)[n - count]
        above, ties = np.flatnonzero(self.nearest > cut), np.flatnonzero(self.nearest == cut)
        room = count - len(above)
        guard = int(ties[room]) if room < len(ties) else n
        return np.sort(np.concatenate([above, ties[:room]])), float(cut), guard

    def _pick(self, pool: IntArray, cut: float, guard: int, most: int) -> tuple[list[int], float]:
        """Take the farthest in turn while none outside the pool can be farther."""
        everything = len(pool) == len(self.X)
        rows = self.X[pool] - self.origin
        squares, nearest = self._squares[pool], self.nearest[pool]
        distance = np.empty_like(nearest)
        taken: list[int] = []
        while len(taken) < most:
            at = int(nearest.argmax())
            if not (everything or nearest[at] > cut or (nearest[at] == cut and pool[at] < guard)):
                break
            radius = float(np.sqrt(max(nearest[at], 0.0)))
            taken.append(int(pool[at]))
            np.dot(rows, -2 * rows[at], out=distance)
            distance += squares
            distance += squares[at]
            np.minimum(nearest, distance, out=nearest)
            nearest[at] = -np.inf
        return taken, radius
