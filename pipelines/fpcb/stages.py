"""Run a stage's shards on the cluster, unless all are finished."""

import sys
from collections.abc import Sequence
from typing import Protocol

from cluster.config import ClusterConfig
from cluster.connect import connect
from cluster.manifest import Manifest, clear_entries
from cluster.shards import S, ShardFunction, finished_shards, map_shards
from cluster.storage import Store
from pipelines.fpcb.config import ShardConfig
from pipelines.fpcb.dataset import withdraw


class Job(Protocol):
    """What every stage's options have."""

    @property
    def shards(self) -> ShardConfig:
        """How the work is cut, and where its results go."""

    @property
    def cluster(self) -> ClusterConfig:
        """Which Ray does it."""


def run_shards(
    function: ShardFunction[S],
    shards: Sequence[S],
    folder: Store,
    part: str,
    key: str,
    label: str,
    job: Job,
) -> Manifest:
    """Call ``function(shard, store)`` for each shard of ``part`` not finished under ``key``.

    No Ray is started for a stage that is finished. Otherwise the part no longer counts as whole
    until it is described again: its files may be replaced one by one.
    """
    store = folder / part
    store.check_writable()
    if job.shards.recompute:
        clear_entries(store)
    done = finished_shards(store, key, len(shards), verify=True)
    if done is not None:
        say(f"{label}: finished by an earlier run")
        return done
    with connect(job.cluster) as cluster:
        if not cluster.borrowed:  # else the recipe that this is a stage of has said it
            say(f"{cluster.describe()}\ndata folder {store.uri}")
        withdraw(folder, part)
        return map_shards(
            cluster,
            function,
            shards,
            store,
            fingerprint=key,
            label=label,
            max_in_flight=job.shards.workers,
            verify=True,
        )


def say(text: str) -> None:
    """Tell the user on stderr."""
    print(text, file=sys.stderr, flush=True)


def data_folder(config: ShardConfig, key: str) -> Store:
    """Return where the data set is kept: as asked for, or named by what determines it."""
    return Store(config.out or f"data/fpcb-{key[:10]}")
