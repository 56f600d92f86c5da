"""Map a function over numbered shards: bounded, resumable, and the same for any cluster."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

import ray

from cluster.errors import ShardsFailed
from cluster.failures import describe_failure, input_error
from cluster.manifest import Entry, Manifest, append_entry, intact, read_entries
from cluster.nodes import Cluster
from cluster.progress import Progress, count
from cluster.storage import Store
from cluster.threads import limited_threads

S = TypeVar("S")
ShardFunction = Callable[[S, Store], dict[str, Any]]

_WAIT_S = 1.0
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
        again for a shard, and must then write the same.
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
        Calls handed to Ray at a time; default twice the cluster's cores.
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
    keys = _keys(len(shards))
    finished = {key: finished[key] for key in keys if key in finished}
    reused = len(finished)
    waiting = deque(_Shard(key, shards[number]) for number, key in enumerate(keys)
                    if key not in finished)  # fmt: skip
    with Progress(label, len(shards), "shards") as progress:
        if reused:
            progress.advance(reused, reused=True)
        if waiting:
            store.check_writable()
            cluster.check_shared(store)
            options: dict[str, Any] = {"num_cpus": num_cpus, "memory": memory}
            cluster.require(options, label)
            run = _Run(label, store, under, max_retries, progress)
            run.options = {"name": f"{label} shard", "max_retries": 0, **options}
            run.call = ray.put((function, store, num_cpus))
            run.work(waiting, max_in_flight or max(2, int(2 * cluster.cores / max(num_cpus, 0.5))))
            finished |= run.finished
            store.sweep()
    return Manifest(store, tuple(finished[key] for key in keys), reused)


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
class _Shard:
    key: str
    value: Any
    attempts: int = 0


@dataclass
class _Run:
    """The driver's side of one call of `map_shards`."""

    label: str
    store: Store
    fingerprint: str
    max_retries: int
    progress: Progress
    options: dict[str, Any] = field(default_factory=dict)
    call: Any = None
    finished: dict[str, Entry] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def work(self, waiting: deque[_Shard], max_in_flight: int) -> None:
        running: dict[Any, _Shard] = {}
        try:
            while running or (waiting and len(self.failed) < _GIVE_UP_AFTER):
                while waiting and len(running) < max_in_flight and not self._gives_up():
                    shard = waiting.popleft()
                    shard.attempts += 1
                    running[_call.options(**self.options).remote(self.call, shard.value)] = shard
                done, _ = ray.wait([*running], num_returns=1, timeout=_WAIT_S)
                for ref in done:
                    self._collect(ref, running.pop(ref), waiting)
        except BaseException:
            # Ctrl-C, InputError, a full disk: what is finished stays, the rest is called off.
            for ref in running:
                with suppress(ray.exceptions.RayError):
                    ray.cancel(ref, force=True)
            raise
        if self.failed:
            raise ShardsFailed(self.label, dict(sorted(self.failed.items())))

    def _gives_up(self) -> bool:
        return len(self.failed) >= _GIVE_UP_AFTER

    def _collect(self, ref: Any, shard: _Shard, waiting: deque[_Shard]) -> None:
        tags = {"stage": self.label}
        try:
            summary, files, seconds = ray.get(ref)
        except ray.exceptions.RayError as error:
            if (refused := input_error(error)) is not None:
                raise refused from error
            cause = describe_failure(error)
            if shard.attempts > self.max_retries:
                self.failed[shard.key] = cause
                self.progress.say(f"shard {shard.key} failed for good: {cause.splitlines()[0]}")
                return
            count("tenfold_shards_retried", 1, tags)
            self.progress.say(f"shard {shard.key} again after {cause.splitlines()[0]}")
            waiting.appendleft(shard)  # a shard that cannot be done shows soon, not last
            return
        entry = Entry(
            key=shard.key,
            fingerprint=self.fingerprint,
            files=files,
            summary=summary,
            seconds=seconds,
            attempts=shard.attempts,
        )
        append_entry(self.store, entry)
        self.finished[shard.key] = entry
        count("tenfold_shards_done", 1, tags)
        count("tenfold_rows", float(summary.get("rows", 0)), tags)
        self.progress.advance()


@ray.remote
def _call(
    call: tuple[ShardFunction[Any], Store, float], shard: Any
) -> tuple[dict[str, Any], dict[str, tuple[int, str]], float]:
    """Run one shard in a worker; return its summary, its files' sizes and checksums, and time."""
    function, store, num_cpus = call
    started = time.perf_counter()
    with limited_threads(num_cpus):
        summary = dict(function(shard, store))
    names = list(summary.pop("files", []))
    sizes = dict(zip(names, store.sizes(names), strict=True))
    missing = [name for name, size in sizes.items() if size is None]
    if missing:
        raise FileNotFoundError(f"the shard names files that it has not written: {missing}")
    files = {name: (int(size or 0), store.checksum(name)) for name, size in sizes.items()}
    return summary, files, time.perf_counter() - started
