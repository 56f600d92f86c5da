"""Solve units on long-lived actors of one kind or several, dealt out by `cluster.schedule`."""

from __future__ import annotations

import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import ray
from ray.actor import ActorHandle

from cluster.errors import ShardsFailed
from cluster.failures import actor_is_gone, describe_failure, input_error, is_loss
from cluster.machine import MACHINE
from cluster.manifest import Entry, append_entry, intact, read_entries
from cluster.meter import Spent
from cluster.nodes import Cluster
from cluster.pieces import Group, Piece
from cluster.pool import Pool, Slot
from cluster.pool import WorkerKind as WorkerKind
from cluster.progress import Progress, count, gauge
from cluster.run_record import count_spent
from cluster.schedule import Scheduler
from cluster.storage import Store
from cluster.unit import Unit as Unit

Arrays = dict[str, np.ndarray]

_WAIT_S = 0.5
_LOOK_S = 2.0
_RAISED_RETRIES = 2  # exceptions of our code rarely go away; lost processes do
_NO_WORKER_NOTE_S = 60.0
_NAMED = 5


def solve_units(
    cluster: Cluster,
    make_worker: Callable[[], ActorHandle] | Sequence[WorkerKind],
    units: Sequence[Unit],
    store: Store,
    *,
    workers: int | Callable[[], int] = 1,
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
    make_worker : callable, or sequence of WorkerKind
        Makes one actor, whose ``solve`` returns a dict of arrays or numpy scalars. The result must
        not depend on which worker takes the unit, or on what it solved before. Several kinds work
        side by side, each unit being for whichever is free; then ``workers`` says nothing.
    units : sequence of Unit
        A unit is ready when the result of its ``after`` is there, which ``solve`` gets as
        ``previous`` (else None). Heads of the longest remaining chains go first. Short ones travel
        several to a call; one that stalls is given to a second worker, and the first answer counts.
    store : Store
        Where the driver writes each result, as ``<key>.npz``, with a manifest; workers need not
        see it.
    workers : int or callable
        Number of actors. A callable is asked again every few seconds, so that nodes that join get
        some. Those that Ray cannot place (yet) take no units.
    fingerprint : str
        Of all that determines the results; units finished under the same one are loaded.
    label : str
        The stage, for the user.
    max_retries : int
        How often a unit is given out again after its actor, or the result, was lost.
    in_flight_per_worker : int
        Calls queued at an actor; 2 hides the driver's latency when units are short.

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
    pieces = [Piece(unit.key, unit.after, unit.cost) for unit in units]
    finished = intact(store, read_entries(store, fingerprint).values(), verify=True)
    results = {unit.key: store.read_arrays(_file(unit.key)) for unit in units
               if unit.key in finished}  # fmt: skip
    scheduler = Scheduler(pieces, done=results, queue=in_flight_per_worker)
    if callable(make_worker):
        make_worker = [WorkerKind(name="", make_worker=make_worker, count=workers)]
    with Progress(label, len(units), "units") as progress:
        if results:
            progress.advance(len(results), reused=True)
        if scheduler.left:
            store.check_writable()
            store.sweep()  # the driver alone writes here: what is half-written is a dead one's
            pool = Pool(cluster, label, make_worker, max_retries, progress)
            run = _Run(pool, scheduler, {u.key: u for u in units}, store, fingerprint, results)
            try:
                run.work()
            finally:
                pool.close()
    return {unit.key: results[unit.key] for unit in units}


def _file(key: str) -> str:
    return f"{key}.npz"


@dataclass(frozen=True)
class _Call:
    group: Group
    slot: Slot
    keys: tuple[str, ...]


@dataclass
class _Run:
    """The driver's side of one call of `solve_units`."""

    pool: Pool
    scheduler: Scheduler
    units: Mapping[str, Unit]
    store: Store
    fingerprint: str
    results: dict[str, Arrays]
    calls: dict[Any, _Call] = field(default_factory=dict)
    losses: Counter[str] = field(default_factory=Counter)
    raised: Counter[str] = field(default_factory=Counter)
    largest_gap: float = 0.0

    def work(self) -> None:
        look_at, note_at = 0.0, time.monotonic() + _NO_WORKER_NOTE_S
        while self.scheduler.left:
            now = time.monotonic()
            if now >= look_at:
                self._resize()
                look_at = now + _LOOK_S
            for group in self.scheduler.assign(now):
                self._give(group)
            done = self._wait()
            for ref in done:
                if ref in self.calls:
                    self._collect(self.calls.pop(ref), ref)
                elif (slot := self.pool.started(ref)) is not None:
                    self.scheduler.add_worker(slot.name, kind=slot.kind.name, node=slot.node)
            if self.calls or done:
                note_at = now + _NO_WORKER_NOTE_S
            elif now >= note_at:
                self.pool.progress.say("waiting for a worker: Ray has no room to start one")
                note_at = now + _NO_WORKER_NOTE_S

    def _wait(self) -> list[Any]:
        """Return all refs that are done, as soon as there is one."""
        refs = [*self.calls, *self.pool.starting]
        if not refs:
            time.sleep(_WAIT_S)
            return []
        done, rest = ray.wait(refs, num_returns=1, timeout=_WAIT_S, fetch_local=False)
        if done and rest:
            more, _ = ray.wait(rest, num_returns=len(rest), timeout=0, fetch_local=False)
            done += more
        return done

    def _resize(self) -> None:
        """Follow the nodes that join and leave; give stalled workers' places to others as well."""
        extra = Counter(worker.kind for worker in self.scheduler.stalled)
        for group in self.scheduler.hopeless(time.monotonic()):
            self._give_up(group)
        busy = {call.slot.name for call in self.calls.values()}
        for slot in self.pool.resize(self.scheduler.left, extra, busy):
            if keys := self.scheduler.remove_worker(slot.name):
                self.pool.progress.say(f"{slot.name} has left: {len(keys)} units again")

    def _give(self, group: Group) -> None:
        keys, slot = group.keys, self.pool.slots[group.worker.name]
        inside = {*keys}
        pieces = []
        for unit in (self.units[key] for key in keys):
            previous = None if unit.after in inside else self.results.get(unit.after or "")
            pieces.append((unit.key, unit.payload, unit.after, previous))
        ask: Any = slot.actor.__ray_call__
        name = f"{slot.actor._ray_actor_creation_function_descriptor.class_name}.solve"
        ref = ask.options(name=name).remote(_solve_in_turn, pieces)
        self.calls[ref] = _Call(group, slot, keys)

    def _collect(self, call: _Call, ref: Any) -> None:
        """Keep what a call has answered, and give out again what it has not."""
        answers: list[_Answer] = []
        try:
            answers, error = ray.get(ref)
        except ray.exceptions.RayError as lost:
            error = lost
        now = time.monotonic()
        for key, (arrays, seconds, spent) in zip(call.keys, answers, strict=False):
            count_spent(spent)
            if self.scheduler.finished(call.group, key, now, seconds):
                kept = {name: np.array(value) for name, value in arrays.items()}
                self._keep(key, kept, call.slot, seconds)
                for other in self.scheduler.unneeded(key):
                    self._give_up(other)
        rest = [key for key in call.keys[len(answers) :] if key not in self.results]
        if error is not None and not call.group.worker.gone:
            if (refused := input_error(error)) is not None and rest:
                raise refused from error
            self._repeat(rest if is_loss(error) else rest[:1], error)
        for place, key in enumerate(call.keys[len(answers) :]):
            self.scheduler.lost(call.group, key, alone=is_loss(error) or not place)
        if actor_is_gone(error) and call.slot.name in self.pool.slots:
            if not rest:  # others have answered in its place
                cause = describe_failure(error).splitlines()[0]
                self.pool.progress.say(f"worker {call.slot.name} again after {cause}")
            self.scheduler.remove_worker(call.slot.name)
            self.pool.replace(call.slot)

    def _repeat(self, keys: Sequence[str], error: BaseException) -> None:
        tally, limit = (
            (self.losses, self.pool.max_retries)
            if is_loss(error)
            else (self.raised, _RAISED_RETRIES)
        )
        tally.update(keys)
        cause = describe_failure(error)
        if failed := {key: cause for key in keys if tally[key] > limit}:
            raise ShardsFailed(self.pool.label, failed) from error
        count("tenfold_units_retried", len(keys), {"stage": self.pool.label})
        for key in keys[:_NAMED]:
            self.pool.progress.say(f"unit {key} again after {cause.splitlines()[0]}")
        if len(keys) > _NAMED:
            self.pool.progress.say(f"{len(keys) - _NAMED} more units of that call again")

    def _give_up(self, group: Group) -> None:
        """Replace an actor that has stalled."""
        slot = self.pool.slots.get(group.worker.name)
        if group.overdue and slot is not None:
            self.pool.progress.say(f"{slot.name} has stalled and is replaced")
            self.scheduler.remove_worker(slot.name)
            self.pool.replace(slot)

    def _keep(self, key: str, arrays: Arrays, slot: Slot, seconds: float) -> None:
        name, tags = _file(key), {"stage": self.pool.label}
        self.store.write_arrays(name, **arrays)
        size = self.store.size(name) or 0
        entry = Entry(
            key=key,
            fingerprint=self.fingerprint,
            files={name: (size, self.store.checksum(name))},
            summary={"kind": slot.kind.name, "node": slot.node},
            seconds=seconds,
            attempts=1 + self.losses[key] + self.raised[key],
        )
        append_entry(self.store, entry)
        self.results[key] = arrays
        engine = str(arrays.get("engine", slot.kind.name))
        count("tenfold_units_done", 1, {**tags, "engine": engine})
        count("tenfold_bytes", size, tags)
        self.largest_gap = max(self.largest_gap, float(np.max(arrays.get("gap", 0.0))))
        gauge("tenfold_largest_gap", self.largest_gap, tags)
        note = f"largest gap {self.largest_gap:.1e}" if "gap" in arrays else ""
        self.pool.progress.advance(note=note)


_Answer = tuple[Arrays, float, Spent]


def _solve_in_turn(
    worker: Any, pieces: Sequence[tuple[str, Any, str | None, Arrays | None]]
) -> tuple[list[_Answer], ray.exceptions.RayTaskError | None]:
    """Run in an actor: solve units one after the other, up to the first that raises."""
    answers: dict[str, _Answer] = {}
    for key, payload, after, previous in pieces:
        if after in answers:
            previous = answers[after][0]
        started, cpu = time.perf_counter(), time.process_time()
        try:
            # Copies: a worker may use its arrays again, and nobody may write into an answer.
            found = {n: np.array(value) for n, value in worker.solve(payload, previous).items()}
        except Exception as error:
            task_error: Any = ray.exceptions.RayTaskError
            told = task_error("solve", traceback.format_exc(), error)
            return [*answers.values()], told
        for value in found.values():
            value.flags.writeable = False
        spent = Spent(MACHINE, time.process_time() - cpu)
        answers[key] = found, time.perf_counter() - started, spent
    return [*answers.values()], None
