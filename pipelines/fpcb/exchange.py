"""`tenfold fpcb import` and `export`: panel bundles to a data set and back."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.csv as pc

from cluster.errors import InputError
from cluster.fingerprint import fingerprint
from cluster.lock import hold
from cluster.manifest import Manifest
from cluster.run_record import recorded
from cluster.storage import Store
from pipelines.fpcb import panel_table
from pipelines.fpcb.bundles import bundle, folders, frame_text, labels
from pipelines.fpcb.bundles.folders import (
    FoundBundle,
    ImportConfig,
    Reject,
    export_bundles,
    find_bundles,
    read_bundles,
    rejects_table,
)
from pipelines.fpcb.bundles.labels import LabelFile, read_labels
from pipelines.fpcb.config import BUNDLE_SHARD, ExportJob, ImportJob
from pipelines.fpcb.dataset import (
    PANELS,
    REJECTS,
    REJECTS_OF_SHARD,
    DataSet,
    by_group,
    describe,
    file_name,
    joint_summary,
    open_data_set,
    row_digests,
    summary_of,
)
from pipelines.fpcb.panel_table import read_panels, write_panels
from pipelines.fpcb.stages import data_folder, run_shards
from pipelines.inputs import look_at_file, look_at_sources
from pipelines.run_folder import command_of

READER = (bundle, folders, frame_text, labels, panel_table)


@dataclass(frozen=True)
class Shard:
    """Bundles that one task reads."""

    index: int
    found: tuple[FoundBundle, ...]


@dataclass(frozen=True, eq=False)
class Reading:
    """How bundles are read."""

    config: ImportConfig
    labels: LabelFile | None

    def read(self, shard: Shard) -> tuple[pa.Table, list[Reject]]:
        """Read the bundles of one shard."""
        return read_bundles(shard.found, self.config, self.labels)


@dataclass(frozen=True, eq=False)
class ImportPlan:
    """Bundles found, cut into shards; ``rejects`` are those that no shard need look at."""

    shards: list[Shard]
    reading: Reading
    rejects: list[Reject]
    key: str


def import_data(job: ImportJob, folders: Sequence[str]) -> DataSet:
    """Read the bundles in and below ``folders``; those that cannot be read are listed.

    Raises
    ------
    InputError
        When a folder, an option or the file of labels cannot be used, or no bundle is good.
    """
    plan = plan_import(folders, job.bundles, job.shards.shard_size)
    store = data_folder(job.shards, plan.key)
    read = partial(write_bundles, plan=plan.reading)
    command = command_of("fpcb import", job, *folders, out=store)
    looks = look_at_sources(folders, PANELS) | look_at_file(job.bundles.labels)
    with hold(store, wait=job.shards.wait), recorded(store, command, looks) as record:
        done = run_shards(read, plan.shards, store, PANELS, plan.key, "import bundles", job)
        rejected = gather_rejects(store, PANELS, done, plan)
        data = describe(store, PANELS, done, {"source": [*folders], "rejected": rejected})
        record.known.headline = f"{data.n_panels:,} panels, {rejected:,} rejected"
    return data


def export_data(job: ExportJob, folder: str) -> dict[str, Any]:
    """Write every panel of a data set as a bundle below ``job.out``.

    Raises
    ------
    InputError
        When the data set has no points, or a bundle cannot be written.
    """
    data = open_data_set(folder, PANELS)
    written: list[str] = []
    for name in data.files(PANELS):
        table = read_panels(data.store, name)
        written += export_bundles(table, job.out, f"{folder}/{name}")
    return {"bundles": len(written), "folder": job.out}


def plan_import(folders: Sequence[str], config: ImportConfig, shard_size: int | None) -> ImportPlan:
    """Find the bundles, and cut them into shards of at most ``shard_size``."""
    shard_size = shard_size or BUNDLE_SHARD
    found, rejects = find_bundles(folders)
    known = read_labels(config.labels) if config.labels else None
    if known is not None:
        names = [one.name for one in found]
        rejects += [Reject.of(name, bad) for name, bad in known.unmatched(names)]
    shards = [
        Shard(index, tuple(found[start : start + shard_size]))
        for index, start in enumerate(range(0, len(found), shard_size))
    ]
    names_and_looks = repr([(one.name, one.folder, _look(one.folder)) for one in found]).encode()
    key = fingerprint("import", names_and_looks, config, known, *READER)
    return ImportPlan(shards, Reading(config, known), rejects, key)


def write_bundles(shard: Shard, store: Store, *, plan: Reading) -> dict[str, Any]:
    """Read one shard's bundles and write the good ones, and a table of the others."""
    table, rejects = plan.read(shard)
    summaries = []
    for split, scenario, part in by_group(table):
        name = file_name(split, scenario, shard.index)
        write_panels(store, name, part)
        points = [values.values.to_numpy() for values in part["points"]]
        digest = row_digests(part.drop_columns(["points"]), points)
        summaries.append(summary_of(part.select(["split", "scenario"]), [name], [digest]))
    return joint_summary(summaries, write_rejects(shard, store, rejects))


def write_rejects(shard: Shard, store: Store, rejects: Sequence[Reject]) -> list[str]:
    """Write what a shard left out; returns the files: one, or none."""
    if not rejects:
        return []
    name = f"{REJECTS_OF_SHARD}{shard.index:05d}.parquet"
    store.write_table(name, rejects_table(rejects))
    return [name]


def gather_rejects(store: Store, part: str, done: Manifest, plan: ImportPlan) -> int:
    """Write ``rejects.csv`` from those of all shards; returns how many there are.

    Raises
    ------
    InputError
        When not one bundle is good; names the first that is bad.
    """
    names = [name for name in done.files if name.startswith(REJECTS_OF_SHARD)]
    tables = [(store / part).read_table(name) for name in names]
    rejects = pa.concat_tables([rejects_table(plan.rejects), *tables])
    store.delete(REJECTS)
    if len(rejects):
        with store.open_output(REJECTS) as sink:
            pc.write_csv(rejects, sink)
    if not done.rows:
        first = rejects.slice(0, 1).to_pylist()[0]
        where = first["file"] + (f", line {first['line']}" if first["line"] else "")
        count = f"{len(rejects):,} bundles, none good"
        fix = f"All are listed in {store}/{REJECTS}."
        raise InputError(where, f"{first['reason']} ({count})", got=first["value"], fix=fix)
    return len(rejects)


def _look(folder: str) -> list[tuple[str, int, int]]:
    """Return names, sizes and times of a bundle's files, which change when the bundle does."""
    try:
        with os.scandir(folder) as entries:
            looks = [(e.name, e.stat().st_size, e.stat().st_mtime_ns) for e in entries]
    except OSError:
        return []  # the shard says what is wrong
    return sorted(looks)
