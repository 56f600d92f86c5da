"""Map a function over numbered shards: bounded, resumable, and the same for any cluster."""

from __future__ import annotations

import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.errors import ShardsFailed
from cluster.failures import describe_failure, input_error, is_loss
from cluster.machine import MACHINE
from cluster.manifest import Entry, Manifest, append_entry, intact, read_entries
from cluster.meter import Spent
from cluster.nodes import Cluster
from cluster.pieces import Group, Piece
from cluster.progress import Progress, count
from cluster.run_record import count_spent
from cluster.schedule import Scheduler
from cluster.storage import Store
from cluster.threads import limited_threads

S = TypeVar("S")
ShardFunction = Callable[[S, Store], dict[str, Any]]

_WAIT_S = 0.5
_LOOK_S = 2.0
_LEAVE_S, _END_S = 2.0, 10.0  # for calls to end by themselves; by force, within 5 s
_NAMED = 5
_GIVE_UP_AFTER = 3  # shards failed for good: then the rest would most likely fail as well


def map_shards(
    cluster: Cluster,
    function: ShardFunction[S],
    shards: Sequence[S],
    store: Store,
    *,
    fingerprint: str,
    label: str,
    num_cpus: float = 1,
    max_in_flight: int | None = None,
    max_retries: int = 3,
    memory: int | None = None,
    verify: bool = False,
) -> Manifest:
    """Call ``function(shard, store)`` for each shard on the cluster, once in all runs together.

    Parameters
    ----------
    cluster : Cluster
        From `connect`.
    function : callable
        Writes its files to ``store`` and returns a summary: plain values, with the names of its
        files under ``files`` and, if it makes rows, their number under ``rows``. It may be called
        again for a shard, also while an earlier call of it still runs, and must then write the
        same.
    shards : sequence
        What to do; a shard is known by its position.
    store : Store
        Where the files and the manifest go; every machine must see it.
    fingerprint : str
        Of all that determines the result. Shards finished under the same fingerprint, with their
        files in place, are not done again.
    label : str
        The stage, for the user.
    num_cpus, memory : float, int
        What one call needs (cores, bytes).
    max_in_flight : int, optional
        Calls handed to Ray at a time; default as many as the nodes have room for, which is looked
        at again every few seconds. Short shards travel several to a call.
    max_retries : int
        Further attempts for a shard whose call raised or whose process was lost.
    verify : bool
        Compare the checksums of files of finished shards, and not only their sizes.

    Returns
    -------
    Manifest
        One entry a shard, in order.

    Raises
    ------
    InputError
        As soon as a call raises it.
    ShardsFailed
        When shards have failed for good; it names them and the first cause.
    """
    under = _under(fingerprint, len(shards))
    finished = intact(store, read_entries(store, under).values(), verify=verify)
    values = dict(zip(_keys(len(shards)), shards, strict=True))
    finished = {key: finished[key] for key in values if key in finished}
    reused = len(finished)
    with Progress(label, len(shards), "shards") as progress:
        if reused:
            progress.advance(reused, reused=True)
        if reused < len(values):
            store.check_writable()
            cluster.check_shared(store)
            options: dict[str, Any] = {"num_cpus": num_cpus, "memory": memory}
            cluster.require(options, label)
            run = _Run(cluster, label, store, under, max_retries, max_in_flight, progress, values)
            run.scheduler = Scheduler([Piece(key) for key in values], done=finished)
            run.options = {"name": f"{label} shard", "max_retries": 0, **options}
            run.call = ray.put((function, store, num_cpus))
            run.work()
            finished |= run.finished
            store.sweep()
    return Manifest(store, tuple(finished[key] for key in values), reused)


def finished_shards(
    store: Store, fingerprint: str, count: int, *, verify: bool = False
) -> Manifest | None:
    """Return what `map_shards` would, where all ``count`` shards are finished; needs no cluster."""
    finished = intact(
        store, read_entries(store, _under(fingerprint, count)).values(), verify=verify
    )
    keys = _keys(count)
    if not finished.keys() >= {*keys}:
        return None
    return Manifest(store, tuple(finished[key] for key in keys), count)


def _under(fingerprint: str, count: int) -> str:
    return f"{fingerprint}/{count}"  # another way to cut the same input is other work


def _keys(count: int) -> list[str]:
    return [f"{number:05d}" for number in range(count)]


@dataclass
class _Run:
    """The driver's side of one call of `map_shards`."""

    cluster: Cluster
    label: str
    store: Store
    fingerprint: str
    max_retries: int
    max_in_flight: int | None
    progress: Progress
    values: dict[str, Any]
    scheduler: Scheduler = field(init=False)
    options: dict[str, Any] = field(init=False)
    call: Any = None
    running: dict[Any, tuple[Group, tuple[str, ...]]] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)  # node by name of a place for one call
    failures: Counter[str] = field(default_factory=Counter)
    finished: dict[str, Entry] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    stranded: bool = False  # without a machine

    def work(self) -> None:
        look_at = 0.0
        try:
            while self.scheduler.left and (self.running or not self._gives_up):
                now = time.monotonic()
                if now >= look_at:
                    self._resize()
                    self._call_off(self._refs(self.scheduler.hopeless(now)))
                    look_at = now + _LOOK_S
                for group in [] if self._gives_up else self.scheduler.assign(now):
                    self._give(group)
                for ref in self._wait():
                    self._collect(ref, *self.running.pop(ref))
        except BaseException:
            # Ctrl-C, InputError, a full disk: what is finished stays, the rest is called off.
            self._call_off([*self.running])
            raise
        if self.failed:
            raise ShardsFailed(self.label, dict(sorted(self.failed.items())))
        self._end_copies()

    def _end_copies(self) -> None:
        """See that second copies of what is done have ended: by themselves, or by force."""
        left = [*self.running]
        if left:
            _, left = ray.wait(left, num_returns=len(left), timeout=_LEAVE_S)
        if left:
            self._call_off(left)
            ray.wait(left, num_returns=len(left), timeout=_END_S)

    @property
    def _gives_up(self) -> bool:
        return len(self.failed) >= _GIVE_UP_AFTER

    def _resize(self) -> None:
        """Have as many places as the nodes have room for now."""
        cpus, memory = max(self.options["num_cpus"], 0.5), self.options["memory"]
        wanted: list[tuple[int, str, str]] = []
        for machine in self.cluster.nodes:
            room = machine.resources.get("CPU", 0.0) / cpus
            if memory:
                room = min(room, machine.resources.get("memory", 0.0) / memory)
            wanted += [(k, f"{machine.node_id}/{k}", machine.node_id) for k in range(int(room))]
        chosen = {name: node for _, name, node in sorted(wanted)[: self.max_in_flight]}
        alive = {node for _, _, node in wanted}
        busy = {group.worker.name for group, _ in self.running.values()}
        for name in sorted(self.places.keys() - chosen.keys()):
            if self.places[name] not in alive or name not in busy:
                del self.places[name]
                if keys := self.scheduler.remove_worker(name):
                    self.progress.say(f"a machine has left: {len(keys)} shards again")
        for name, node in chosen.items():
            if name not in self.places:
                self.places[name] = node
                self.scheduler.add_worker(name, kind=node, node=node)
        if not self.places and not self.stranded:
            self.progress.say("no machine is left: waiting for one to join")
        self.stranded = not self.places

    def _wait(self) -> list[Any]:
        """Return all calls that are done, as soon as there is one."""
        if not self.running:
            time.sleep(_WAIT_S)
            return []
        done, rest = ray.wait([*self.running], num_returns=1, timeout=_WAIT_S, fetch_local=False)
        if done and rest:
            more, _ = ray.wait(rest, num_returns=len(rest), timeout=0, fetch_local=False)
            done += more
        return done

    def _give(self, group: Group) -> None:
        keys = group.keys
        # To that node, whose speed the group is made for; elsewhere when it is taken by others.
        there = NodeAffinitySchedulingStrategy(
            group.worker.node, soft=True, _spill_on_unavailable=True
        )
        task = _call.options(scheduling_strategy=there, **self.options)
        ref = task.remote(self.call, [self.values[key] for key in keys])
        self.running[ref] = group, keys

    def _collect(self, ref: Any, group: Group, keys: Sequence[str]) -> None:
        """Keep what a call has answered, and give out again what it has not."""
        answers: list[_Answer] = []
        try:
            answers, error = ray.get(ref)
        except ray.exceptions.RayError as lost:
            error = lost
        now = time.monotonic()
        for key, (summary, files, seconds, spent) in zip(keys, answers, strict=False):
            count_spent(spent)
            if self.scheduler.finished(group, key, now, seconds):
                self._keep(key, summary, files, seconds)
                stalled = [other for other in self.scheduler.unneeded(key) if other.overdue]
                self._call_off(self._refs(stalled))
        rest = keys[len(answers) :]
        called_off = isinstance(error, ray.exceptions.TaskCancelledError) or group.worker.gone
        if error is not None and not called_off:
            guilty = [key for key in (rest if is_loss(error) else rest[:1])
                      if key not in self.finished]  # fmt: skip
            if guilty and (refused := input_error(error)) is not None:
                raise refused from error
            self._repeat(guilty, error)
        for place, key in enumerate(rest):
            self.scheduler.lost(group, key, alone=is_loss(error) or not place)

    def _repeat(self, keys: Sequence[str], error: BaseException) -> None:
        cause = describe_failure(error)
        self.failures.update(keys)
        for key in [key for key in keys if self.failures[key] > self.max_retries]:
            self.failed[key] = cause
            self.scheduler.drop(key)
            self.progress.say(f"shard {key} failed for good: {cause.splitlines()[0]}")
        again = [key for key in keys if key not in self.failed]
        count("tenfold_shards_retried", len(again), {"stage": self.label})
        for key in again[:_NAMED]:
            self.progress.say(f"shard {key} again after {cause.splitlines()[0]}")
        if len(again) > _NAMED:
            self.progress.say(f"{len(again) - _NAMED} more shards of that call again")

    def _keep(
        self, key: str, summary: dict[str, Any], files: dict[str, tuple[int, str]], seconds: float
    ) -> None:
        tags = {"stage": self.label}
        entry = Entry(
            key=key,
            fingerprint=self.fingerprint,
            files=files,
            summary=summary,
            seconds=seconds,
            attempts=1 + self.failures[key],
        )
        append_entry(self.store, entry)
        self.finished[key] = entry
        count("tenfold_shards_done", 1, tags)
        count("tenfold_rows", float(summary.get("rows", 0)), tags)
        count("tenfold_bytes", float(sum(size for size, _ in files.values())), tags)
        self.progress.advance()

    def _refs(self, groups: Sequence[Group]) -> list[Any]:
        if not groups:
            return []
        return [ref for ref, (group, _) in self.running.items() if group in groups]

    def _call_off(self, refs: Sequence[Any]) -> None:
        """End calls by force: a worker interrupted within an import could not repeat it."""
        for ref in refs:
            with suppress(ray.exceptions.RayError):
                ray.cancel(ref, force=True)


_Answer = tuple[dict[str, Any], dict[str, tuple[int, str]], float, Spent]


@ray.remote
def _call(
    call: tuple[ShardFunction[Any], Store, float], shards: Sequence[Any]
) -> tuple[list[_Answer], ray.exceptions.RayTaskError | None]:
    """Run shards in a worker, up to the first that raises.

    Returns of each what the function said, its files' sizes and checksums, its seconds, and what
    it took of the machine.
    """
    function, store, num_cpus = call
    answers: list[_Answer] = []
    for shard in shards:
        try:
            with limited_threads(num_cpus):
                answers.append(_do(function, store, shard))
        except Exception as error:
            task_error: Any = ray.exceptions.RayTaskError
            return answers, task_error("shard", traceback.format_exc(), error)
    return answers, None


def _do(function: ShardFunction[Any], store: Store, shard: Any) -> _Answer:
    started, cpu = time.perf_counter(), time.process_time()
    summary = dict(function(shard, store))
    names = list(summary.pop("files", []))
    sizes = dict(zip(names, store.sizes(names), strict=True))
    missing = [name for name, size in sizes.items() if size is None]
    if missing:
        raise FileNotFoundError(f"the shard names files that it has not written: {missing}")
    files = {name: (int(size or 0), store.checksum(name)) for name, size in sizes.items()}
    spent = Spent(MACHINE, time.process_time() - cpu)
    return summary, files, time.perf_counter() - started, spent
