"""Panels from the feature cache, batch by batch: never all in memory, the same for any workers.

A batch is the sum of a fixed number of *lanes*. Each epoch deals the row groups of the files out
to the lanes anew; a lane reads its own one after the other and draws its part of each batch from
a small buffer. Whoever carries which lanes, the batches are the same.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from cluster.errors import InputError
from pipelines.fpcb.detection.cached import Panels, Piece, Reader, read_piece

_PIECES_PER_LANE = 4
_CACHE_BYTES = 256 << 20  # of row groups kept by a process: small sets are decoded once


@dataclass(frozen=True, kw_only=True)
class StreamPlan:
    """How items become batches.

    Attributes
    ----------
    lanes : int
        Parts of a batch.
    part : int
        Items of a lane in a batch.
    steps : int
        Batches of an epoch.
    buffer : int
        Items a lane keeps to draw from.
    seed : int
    """

    lanes: int
    part: int
    steps: int
    buffer: int
    seed: int


@dataclass(frozen=True)
class Part:
    """One lane's part of a batch; ``refused`` names bad data instead, as InputError's arguments."""

    epoch: int
    step: int
    lane: int
    items: torch.Tensor
    refused: tuple[Any, ...] | None = None


class PanelStream(IterableDataset[Part]):
    """Parts of batches of ``lanes``, step by step and epoch by epoch.

    Parameters
    ----------
    panels : Panels
    reader : Reader
    plan : StreamPlan
    lanes : sequence of int
        Those of this process, in ascending order.
    epochs : range
    """

    def __init__(
        self, panels: Panels, reader: Reader, plan: StreamPlan, lanes: Sequence[int], epochs: range
    ) -> None:
        super().__init__()
        self.panels, self.reader, self.plan = panels, reader, plan
        self.lanes, self.epochs = list(lanes), epochs
        self.pieces = _cut(panels.pieces, _PIECES_PER_LANE * plan.lanes)
        self._kept: dict[Piece, npt.NDArray[Any]] = {}
        self._kept_bytes = 0

    def __iter__(self) -> Iterator[Part]:
        # DataLoader takes from its workers in turn: with every k-th lane each, lanes stay in order.
        info = get_worker_info()
        lanes = self.lanes[info.id :: info.num_workers] if info else self.lanes
        for epoch in self.epochs:
            decks = deal(self.pieces, self.plan.lanes, self.plan.seed, epoch)
            sources = {lane: self._lane(epoch, lane, decks[lane]) for lane in lanes}
            for step in range(self.plan.steps):
                for lane in lanes:
                    try:
                        items = torch.from_numpy(next(sources[lane]))
                    except InputError as error:  # text survives the way from a loader's process
                        yield Part(epoch, step, lane, torch.empty(0), error.__reduce__()[1])
                        return
                    yield Part(epoch, step, lane, items)

    def _lane(self, epoch: int, lane: int, deck: Sequence[Piece]) -> Iterator[npt.NDArray[Any]]:
        random = np.random.default_rng([self.plan.seed, epoch, lane])
        part, unread = self.plan.part, list(deck)
        pool = self._read(unread.pop(0))
        while True:
            more = [pool]
            held = len(pool)
            while held < part or (unread and held < part + self.plan.buffer):
                unread = unread or list(deck)  # a lane that is a little short begins again
                more.append(self._read(unread.pop(0)))
                held += len(more[-1])
            pool = np.concatenate(more) if len(more) > 1 else pool.copy()
            chosen = random.choice(held, part, replace=False)
            yield pool[chosen]
            left = held - part
            holes = chosen[chosen < left]
            pool[holes] = pool[left + np.flatnonzero(~np.isin(np.arange(left, held), chosen))]
            pool = pool[:left]

    def _read(self, piece: Piece) -> npt.NDArray[Any]:
        if piece in self._kept:
            return self._kept[piece]
        items = read_piece(self.panels.store, piece, self.reader)
        if self._kept_bytes + items.nbytes <= _CACHE_BYTES:
            self._kept[piece] = items
            self._kept_bytes += items.nbytes
        return items


def loader(stream: PanelStream, processes: int, *, pinned: bool) -> DataLoader[Part]:
    """Return a loader with up to ``processes`` processes; 0 reads in this one."""
    count = max((k for k in range(1, processes + 1) if len(stream.lanes) % k == 0), default=0)
    return DataLoader(
        stream,
        batch_size=None,
        num_workers=count,
        prefetch_factor=4 if count else None,
        multiprocessing_context="spawn" if count else None,  # forks of an actor's threads may hang
        collate_fn=_as_is,
        pin_memory=False if not pinned else count > 0,
    )


def _as_is(part: Any) -> Any:
    return part


def deal(pieces: Sequence[Piece], lanes: int, seed: int, epoch: int) -> list[list[Piece]]:
    """Deal pieces out to lanes in a random order, each to the lane that has fewest rows so far."""
    order = np.random.default_rng([seed, epoch]).permutation(len(pieces))
    decks: list[list[Piece]] = [[] for _ in range(lanes)]
    rows = [0] * lanes
    for index in order:
        lane = rows.index(min(rows))
        decks[lane].append(pieces[index])
        rows[lane] += len(pieces[index].rows)
    return [deck or list(pieces) for deck in decks]


def _cut(pieces: Sequence[Piece], at_least: int) -> list[Piece]:
    """Cut row groups, where they are few, so that lanes get about the same number of panels."""
    cuts = -(-at_least // len(pieces))
    parts = [(p, rows) for p in pieces for rows in np.array_split(np.array(p.rows), cuts)]
    return [Piece(p.file, p.group, tuple(rows.tolist())) for p, rows in parts if rows.size]
