"""Pieces of work, the chains they form, and which of those that are ready goes first."""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from heapq import heappop, heappush
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cluster.forecast import Group

_LEVELS_PER_E = 1 / math.log(1.25)


@dataclass(frozen=True, slots=True)
class Piece:
    """Work that is done whole: ``after`` names the piece whose result it needs.

    ``cost`` is a guess at the work in it, in any unit that the pieces of a run share.
    """

    key: str
    after: str | None = None
    cost: float = 1.0


class State(Enum):
    """Where a piece is: its predecessor undone, nobody's, with a worker, or answered."""

    BLOCKED = 0
    READY = 1
    RUNNING = 2
    DONE = 3


@dataclass(eq=False, slots=True)
class Item:
    """A piece on its way; ``tail`` is the work of the longest chain of pieces that follow it."""

    key: str
    place: int
    cost: float
    after: Item | None = None
    followers: list[Item] = field(default_factory=list)
    tail: float = 0.0
    state: State = State.BLOCKED
    alone: bool = False  # its group was lost: it shares a call with no other any more
    overdue: bool = False
    patience: float = 1.0  # how much longer to wait for it, once it was taken for stalled
    holders: list[Group] = field(default_factory=list)

    @property
    def rank(self) -> float:
        """Work of the longest chain that this piece heads."""
        return self.cost + self.tail

    @property
    def startable(self) -> bool:
        """Whether what it follows is done."""
        return self.after is None or self.after.state is State.DONE


def link(pieces: Iterable[Piece]) -> dict[str, Item]:
    """Join pieces into chains, by key in the order given.

    Raises
    ------
    ValueError
        When keys repeat, a cost is not above 0, or ``after`` names no piece or goes in a circle.
    """
    given = [*pieces]
    items = {p.key: Item(p.key, place, p.cost) for place, p in enumerate(given)}
    if len(items) != len(given):
        raise ValueError("units: keys must differ")
    for piece in given:
        if not 0 < piece.cost < math.inf:
            raise ValueError(f"unit {piece.key}: cost must be above 0, got {piece.cost}")
        if piece.after is not None:
            if piece.after not in items:
                raise ValueError(f"unit {piece.key}: after {piece.after!r} is no unit")
            items[piece.key].after = items[piece.after]
            items[piece.after].followers.append(items[piece.key])
    order = [item for item in items.values() if item.after is None]
    for item in order:  # grows while it is walked
        order.extend(item.followers)
    if len(order) != len(items):
        reached = {item.key for item in order}
        circle = next(key for key in items if key not in reached)
        raise ValueError(f"unit {circle}: its chain of units goes round in a circle")
    for item in reversed(order):
        if item.after is not None:
            item.after.tail = max(item.after.tail, item.rank)
    return items


class ReadyItems:
    """What waits for a worker, those that head the most work first.

    Kept in levels of about equal rank, so that the largest piece that fits a slow worker is found
    without looking through all. Entries whose item has been taken meanwhile are passed over.
    """

    def __init__(self) -> None:
        self._levels: dict[int, list[tuple[float, int, Item]]] = {}
        self._order: list[int] = []  # negated levels that have entries, ascending

    def push(self, item: Item) -> None:
        """Add an item whose state is READY."""
        level = rank_level(item.rank)
        if level not in self._levels:
            self._levels[level] = []
            insort(self._order, -level)
        heappush(self._levels[level], (-item.rank, item.place, item))

    def top(self) -> Item | None:
        """Return the first in line, if any."""
        return next(self.tops(), None)

    def least(self) -> Item | None:
        """Return the first of the lowest level, if any."""
        return next(self._tops(reversed([*self._order])), None)

    def tops(self) -> Iterator[Item]:
        """Yield the first of each level, from the highest level down."""
        return self._tops([*self._order])

    def _tops(self, order: Iterable[int]) -> Iterator[Item]:
        for negated in order:
            heap = self._levels[-negated]
            while heap and heap[0][2].state is not State.READY:
                heappop(heap)
            if heap:
                yield heap[0][2]
            else:
                del self._levels[-negated]
                self._order.remove(negated)


def rank_level(work: float) -> int:
    """Return the step of a ladder of factors 1.25 on which this much work (or speed) lies."""
    return math.floor(math.log(work) * _LEVELS_PER_E)
