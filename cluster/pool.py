"""Actors of one or several kinds, as many as there is work and room for while nodes come and go."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.actor import ActorHandle

from cluster.errors import ShardsFailed
from cluster.failures import describe_failure, input_error, is_loss
from cluster.nodes import Cluster
from cluster.progress import Progress, gauge

_RAISED_RETRIES = 2


@dataclass(frozen=True, kw_only=True)
class WorkerKind:
    """Actors that are alike: their speed is measured together.

    Parameters
    ----------
    name : str
        For the user, such as ``newton`` or ``mlx``.
    make_worker : callable
        Makes one actor, with a method ``solve(payload, previous)``.
    count : int or callable
        How many there should be. A callable is asked again every few seconds, so that nodes that
        join get workers. Those that Ray cannot place (yet) take no units.
    """

    name: str
    make_worker: Callable[[], ActorHandle]
    count: int | Callable[[], int]

    @property
    def wanted(self) -> int:
        """How many there should be now."""
        return self.count() if callable(self.count) else self.count


@dataclass(eq=False)
class Slot:
    """One actor, known by a name of its own; ``node`` once it has started."""

    name: str
    kind: WorkerKind
    actor: ActorHandle
    node: str = ""


@dataclass
class Pool:
    """The actors, of which some may still be starting."""

    cluster: Cluster
    label: str
    kinds: Sequence[WorkerKind]
    max_retries: int
    progress: Progress
    slots: dict[str, Slot] = field(default_factory=dict)
    starting: dict[Any, Slot] = field(default_factory=dict)
    refused: Counter[str] = field(default_factory=Counter)  # workers that shall not start again
    raised: Counter[str] = field(default_factory=Counter)
    lost: int = 0
    made: int = 0

    def resize(self, most: int, extra: Mapping[str, int], busy: set[str]) -> list[Slot]:
        """Start and drop workers as their kinds want; return those gone that had started.

        Parameters
        ----------
        most : int
            Pieces of work left: no kind has more workers.
        extra : mapping
            Workers to start beside those wanted, by kind: some of them have stalled.
        busy : set of str
            Names of those that hold work; they go only with their node.
        """
        alive = {node.node_id for node in self.cluster.nodes}
        gone = [slot for slot in self.slots.values() if slot.node and slot.node not in alive]
        for slot in gone:
            self.drop(slot)
        for kind in self.kinds:
            mine = [slot for slot in self.slots.values() if slot.kind is kind]
            wanted = max(0, kind.wanted - self.refused[kind.name]) + extra.get(kind.name, 0)
            if self.raised[kind.name] > _RAISED_RETRIES:
                wanted = min(wanted, sum(1 for slot in mine if slot.node))
            for _ in range(min(wanted, most) - len(mine)):
                self.start(kind)
            # First those that have not started, the latest of them first.
            idle = [slot for slot in reversed(mine) if slot.name not in busy]
            idle.sort(key=lambda slot: bool(slot.node))
            for slot in idle[: max(0, len(mine) - wanted)]:
                self.drop(slot)
                gone += [slot] if slot.node else []
        return gone

    def start(self, kind: WorkerKind) -> None:
        """Ask Ray for another actor."""
        self.made += 1
        actor = kind.make_worker()
        slot = Slot(f"{kind.name or 'worker'}-{self.made}", kind, actor)
        self.slots[slot.name] = slot
        where: Any = actor.__ray_call__
        self.starting[where.remote(_where)] = slot

    def started(self, ref: Any) -> Slot | None:
        """Return the actor that has started, or None when it has failed to.

        Raises
        ------
        InputError
            From its constructor, when no worker is left beside it.
        ShardsFailed
            When constructors keep failing, and no worker is left.
        """
        slot = self.starting.pop(ref)
        try:
            slot.node = ray.get(ref)
        except ray.exceptions.RayError as error:
            if slot.name in self.slots:
                self._failed(slot, error)
            return None
        finally:
            self._show()
        return slot if slot.name in self.slots else None

    def _failed(self, slot: Slot, error: ray.exceptions.RayError) -> None:
        kind, cause = slot.kind, describe_failure(error)
        self.drop(slot)
        if (refused := input_error(error)) is not None:
            self.refused[kind.name] += 1
            if not self.slots:
                raise refused from error
            self.progress.say(f"no {slot.name}: {refused}")
            return
        if is_loss(error):
            self.lost += 1
            if self.lost > self.max_retries * (1 + len(self.slots)):
                raise ShardsFailed(self.label, {"worker": cause}) from error
        else:
            self.raised[kind.name] += 1
        if self.raised[kind.name] <= _RAISED_RETRIES:
            self.progress.say(f"a worker could not start, another try: {cause.splitlines()[0]}")
            self.start(kind)
            return
        for other in [*self.slots.values()]:
            if other.kind is kind and not other.node:
                self.drop(other)
        if not self.slots:
            raise ShardsFailed(self.label, {"worker": cause}) from error
        self.progress.say(f"no more workers {kind.name}: {cause.splitlines()[0]}")

    def replace(self, slot: Slot) -> None:
        """Start another actor in place of one that is dead, or shall be."""
        self.drop(slot)
        self.start(slot.kind)

    def drop(self, slot: Slot) -> None:
        """Forget an actor, and kill it."""
        self.slots.pop(slot.name, None)
        with suppress(ray.exceptions.RayError):
            ray.kill(slot.actor, no_restart=True)
        self._show()

    def close(self) -> None:
        """Kill all."""
        for slot in [*self.slots.values()]:
            self.drop(slot)

    def _show(self) -> None:
        ready = sum(1 for slot in self.slots.values() if slot.node)
        gauge("tenfold_workers", ready, {"stage": self.label})


def _where(_: Any) -> str:
    """Run in an actor: return the node it is on, once its constructor is through."""
    return ray.get_runtime_context().get_node_id()
