"""Solve units on long-lived actors by work-stealing: whoever is idle takes the next ready unit."""

from __future__ import annotations

import heapq
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import ray
from ray.actor import ActorHandle

from cluster.errors import ShardsFailed
from cluster.failures import actor_is_gone, describe_failure, input_error, is_loss
from cluster.manifest import Entry, append_entry, intact, read_entries
from cluster.nodes import Cluster
from cluster.progress import Progress, count, gauge
from cluster.storage import Store
from cluster.unit import Unit as Unit

Arrays = dict[str, np.ndarray]

_WAIT_S = 1.0
_RAISED_RETRIES = 2  # exceptions of our code rarely go away; lost processes do
_NO_WORKER_NOTE_S = 60.0


def solve_units(
    cluster: Cluster,
    make_worker: Callable[[], ActorHandle],
    units: Sequence[Unit],
    store: Store,
    *,
    workers: int,
    fingerprint: str,
    label: str,
    max_retries: int = 5,
    in_flight_per_worker: int = 1,
) -> dict[str, Arrays]:
    """Call ``worker.solve(payload, previous)`` for each unit, once in all runs together.

    Parameters
    ----------
    cluster : Cluster
        From `connect`.
    make_worker : callable
        Makes one actor, whose ``solve`` returns a dict of arrays or numpy scalars. The result must
        not depend on which worker takes the unit, or on what it solved before.
    units : sequence of Unit
        A unit is ready when the result of its ``after`` is there, which ``solve`` gets as
        ``previous`` (else None). Heads of the longest remaining chains go first.
    store : Store
        Where the driver writes each result, as ``<key>.npz``, with a manifest; workers need not
        see it.
    workers : int
        Number of actors. Those that Ray cannot place (yet) take no units.
    fingerprint : str
        Of all that determines the results; units finished under the same one are loaded.
    label : str
        The stage, for the user.
    max_retries : int
        How often a unit is given out again after its actor, or the result, was lost.
    in_flight_per_worker : int
        Units queued at an actor; 2 hides the driver's latency when units are short.

    Returns
    -------
    dict
        Arrays of each unit by key, in the order of ``units``.

    Raises
    ------
    InputError
        As soon as a worker raises it.
    ShardsFailed
        When a unit raised 3 times, or was lost more than ``max_retries`` times.
    ValueError
        When keys repeat, or ``after`` names no unit, or goes round in a circle.
    """
    depth = _chain_depths(units)
    finished = intact(store, read_entries(store, fingerprint).values(), verify=True)
    results = {unit.key: store.read_arrays(_file(unit.key)) for unit in units
               if unit.key in finished}  # fmt: skip
    with Progress(label, len(units), "units") as progress:
        if results:
            progress.advance(len(results), reused=True)
        todo = [unit for unit in units if unit.key not in results]
        if todo:
            store.check_writable()
            pool = _Pool(label, make_worker, in_flight_per_worker, max_retries, progress)
            run = _Run(pool, store, fingerprint, depth, results)
            try:
                run.work(todo, min(workers, len(todo)))
            finally:
                pool.close()
    return {unit.key: results[unit.key] for unit in units}


def _file(key: str) -> str:
    return f"{key}.npz"


def _chain_depths(units: Sequence[Unit]) -> dict[str, tuple[int, int]]:
    """Return a sorting key for each unit: (−length of the longest chain it heads, position)."""
    by_key = {unit.key: unit for unit in units}
    if len(by_key) != len(units):
        raise ValueError("units: keys must differ")
    longest = dict.fromkeys(by_key, 0)
    for unit in units:
        length, at, seen = 1, unit, {unit.key}
        while longest[at.key] < length:
            longest[at.key] = length
            if at.after is None:
                break
            if at.after not in by_key or at.after in seen:
                raise ValueError(f"unit {at.key}: after {at.after!r} is no unit before it")
            at, length = by_key[at.after], length + 1
            seen.add(at.key)
    return {unit.key: (-longest[unit.key], place) for place, unit in enumerate(units)}


@dataclass(eq=False)
class _Slot:
    """One worker's place: its actor is replaced when it dies."""

    actor: ActorHandle
    ready: bool = False
    load: int = 0


@dataclass
class _Pool:
    """The actors, of which some may still be starting."""

    label: str
    make_worker: Callable[[], ActorHandle]
    per_worker: int
    max_retries: int
    progress: Progress
    slots: list[_Slot] = field(default_factory=list)
    starting: dict[Any, _Slot] = field(default_factory=dict)
    lost: int = 0
    raised: int = 0

    def start(self, slot: _Slot | None = None) -> None:
        actor = self.make_worker()
        if slot is None:
            slot = _Slot(actor)
            self.slots.append(slot)
        slot.actor, slot.ready, slot.load = actor, False, 0
        self.starting[actor.__ray_ready__.remote()] = slot

    def started(self, ref: Any) -> None:
        """Take note of an actor that has started, or failed to."""
        slot = self.starting.pop(ref)
        try:
            ray.get(ref)
            slot.ready = True
        except ray.exceptions.RayError as error:
            if (refused := input_error(error)) is not None:
                raise refused from error
            cause = describe_failure(error)
            if is_loss(error):
                self.lost += 1
            else:
                self.raised += 1
            limit = self.max_retries * max(1, len(self.slots))
            if self.raised > _RAISED_RETRIES or self.lost > limit:
                raise ShardsFailed(self.label, {"worker": cause}) from error
            self.progress.say(f"a worker could not start, another try: {cause.splitlines()[0]}")
            self._discard(slot)
            self.start(slot)
        gauge("tenfold_workers", sum(s.ready for s in self.slots), {"stage": self.label})

    def idle(self) -> _Slot | None:
        """Return the ready worker with the shortest queue that has room, if any."""
        free = [slot for slot in self.slots if slot.ready and slot.load < self.per_worker]
        return min(free, key=lambda slot: slot.load, default=None)

    def replace(self, slot: _Slot) -> None:
        self._discard(slot)
        self.start(slot)

    def close(self) -> None:
        for slot in self.slots:
            self._discard(slot)

    def _discard(self, slot: _Slot) -> None:
        with suppress(ray.exceptions.RayError):
            ray.kill(slot.actor, no_restart=True)


@dataclass
class _Run:
    """The driver's side of one call of `solve_units`."""

    pool: _Pool
    store: Store
    fingerprint: str
    depth: Mapping[str, tuple[int, int]]
    results: dict[str, Arrays]
    ready: list[tuple[tuple[int, int], str]] = field(default_factory=list)
    calls: dict[Any, _Call] = field(default_factory=dict)
    losses: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    raised: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    largest_gap: float = 0.0

    def work(self, todo: Sequence[Unit], workers: int) -> None:
        units = {unit.key: unit for unit in todo}
        followers: dict[str, list[str]] = defaultdict(list)
        for unit in todo:
            if unit.after is None or unit.after in self.results:
                self._offer(unit.key)
            else:
                followers[unit.after].append(unit.key)
        for _ in range(workers):
            self.pool.start()
        left, idle_since = set(units), time.monotonic()
        while left:
            while self.ready and (slot := self.pool.idle()) is not None:
                self._give(units[heapq.heappop(self.ready)[1]], slot)
            refs = [*self.calls, *self.pool.starting]
            done, _ = ray.wait(refs, num_returns=1, timeout=_WAIT_S)
            for ref in done:
                if ref in self.pool.starting:
                    self.pool.started(ref)
                elif (key := self._collect(ref)) is not None:
                    left.discard(key)
                    for follower in followers.pop(key, []):
                        self._offer(follower)
            if self.calls or done:
                idle_since = time.monotonic()
            elif time.monotonic() - idle_since > _NO_WORKER_NOTE_S:
                self.pool.progress.say("waiting for a worker: Ray has no room to start one")
                idle_since = time.monotonic()

    def _offer(self, key: str) -> None:
        heapq.heappush(self.ready, (self.depth[key], key))

    def _give(self, unit: Unit, slot: _Slot) -> None:
        previous = self.results[unit.after] if unit.after is not None else None
        slot.load += 1
        ref: Any = slot.actor.solve.remote(unit.payload, previous)
        self.calls[ref] = _Call(unit, slot, slot.actor, time.monotonic())

    def _collect(self, ref: Any) -> str | None:
        """Keep the result of a call and return its unit's key; None when it has to be repeated."""
        call = self.calls.pop(ref)
        current = call.slot.actor is call.actor
        if current:
            call.slot.load -= 1
        try:
            arrays = {name: np.array(value) for name, value in ray.get(ref).items()}
        except ray.exceptions.RayError as error:
            if (refused := input_error(error)) is not None:
                raise refused from error
            self._repeat(call.unit.key, error)
            if current and actor_is_gone(error):
                self.pool.replace(call.slot)
            return None
        self._keep(call, arrays)
        return call.unit.key

    def _repeat(self, key: str, error: BaseException) -> None:
        tally, limit = (
            (self.losses, self.pool.max_retries)
            if is_loss(error)
            else (self.raised, _RAISED_RETRIES)
        )
        tally[key] += 1
        cause = describe_failure(error)
        if tally[key] > limit:
            raise ShardsFailed(self.pool.label, {key: cause}) from error
        count("tenfold_units_retried", 1, {"stage": self.pool.label})
        self.pool.progress.say(f"unit {key} again after {cause.splitlines()[0]}")
        self._offer(key)

    def _keep(self, call: _Call, arrays: Arrays) -> None:
        key, name, tags = call.unit.key, _file(call.unit.key), {"stage": self.pool.label}
        self.store.write_arrays(name, **arrays)
        size = self.store.size(name) or 0
        entry = Entry(
            key=key,
            fingerprint=self.fingerprint,
            files={name: (size, self.store.checksum(name))},
            seconds=time.monotonic() - call.since,
            attempts=1 + self.losses[key] + self.raised[key],
        )
        append_entry(self.store, entry)
        self.results[key] = arrays
        count("tenfold_units_done", 1, tags)
        self.largest_gap = max(self.largest_gap, float(np.max(arrays.get("gap", 0.0))))
        gauge("tenfold_largest_gap", self.largest_gap, tags)
        note = f"largest gap {self.largest_gap:.1e}" if "gap" in arrays else ""
        self.pool.progress.advance(note=note)


@dataclass(frozen=True)
class _Call:
    unit: Unit
    slot: _Slot
    actor: ActorHandle
    since: float
