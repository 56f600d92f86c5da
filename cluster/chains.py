"""The chains that pieces of work form, and which of those that are ready goes first."""

import math
from bisect import insort
from collections.abc import Iterable, Iterator
from heapq import heappop, heappush

from cluster.pieces import Item, Piece, State

_LEVELS_PER_E = 1 / math.log(1.25)


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
