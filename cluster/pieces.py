"""Pieces of work, the workers that do them, and the groups in which they travel there."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import Enum


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


@dataclass(slots=True)
class Rate:
    """Work done and the seconds it took, the older the less it counts."""

    work: float = 0.0
    seconds: float = 0.0
    groups: float = 0.0

    def add(self, work: float, seconds: float, kept: float) -> None:
        """Count another measurement."""
        self.work = kept * self.work + work
        self.seconds = kept * self.seconds + seconds
        self.groups = kept * self.groups + 1


@dataclass(eq=False, slots=True)
class Worker:
    """Something that does pieces one after the other; ``speed`` is work a second, if known."""

    name: str
    kind: str
    node: str
    number: int
    rate: Rate = field(default_factory=Rate)
    trials: int = 0  # groups measured
    speed: float | None = None
    groups: list[Group] = field(default_factory=list)
    gone: bool = False
    next_in_chain: Item | None = None


@dataclass(eq=False, slots=True)
class Group:
    """Pieces that travel to a worker in one call, to be done in this order."""

    number: int
    worker: Worker
    open: dict[str, Item]
    began: float
    copies: bool = False  # of pieces that another worker has as well
    speed: float | None = None
    ends: float = math.inf
    work: float = 0.0
    tail: float = 0.0
    tail_s: float = 0.0
    overdue: bool = False
    patience: float = 1.0
    measured_work: float = 0.0
    measured_s: float = 0.0

    @property
    def keys(self) -> tuple[str, ...]:
        """The pieces that have not come back."""
        return tuple(self.open)
