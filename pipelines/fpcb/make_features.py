"""`tenfold fpcb features`: features of panels that are generated, kept as points, or bundles.

Generated panels are made and measured in one task, and their points never written.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from cluster.fingerprint import fingerprint
from cluster.lock import hold
from cluster.manifest import Manifest
from cluster.run_record import OpenRecord, current, recorded
from cluster.storage import Store
from pipelines.fpcb.config import FeatureJob
from pipelines.fpcb.dataset import (
    FEATURES,
    PANELS,
    DataSet,
    by_group,
    describe,
    file_name,
    is_data_set,
    joint_summary,
    open_data_set,
    row_digests,
    summary_of,
)
from pipelines.fpcb.exchange import Reading, Shard, gather_rejects, plan_import, write_rejects
from pipelines.fpcb.features import (
    extraction,
    frame_columns,
    geometry,
    kinematics,
    places,
    series,
    table,
)
from pipelines.fpcb.features.extraction import FeatureConfig, Features, extract
from pipelines.fpcb.features.store import FeatureWriter, to_rows
from pipelines.fpcb.features.table import FEATURE_VERSION
from pipelines.fpcb.generate import GENERATOR, Block, plan_blocks
from pipelines.fpcb.panel_table import read_panels, to_batches
from pipelines.fpcb.panels import PanelBatch
from pipelines.fpcb.stages import data_folder, run_shards
from pipelines.fpcb.synthesis.config import GenerateConfig
from pipelines.fpcb.synthesis.generator import generate
from pipelines.inputs import look_at_data_set, look_at_file, look_at_sources
from pipelines.run_folder import command_of

EXTRACTOR = (extraction, frame_columns, geometry, kinematics, places, series, table)

_CHUNK = 250  # panels measured at a time, a row group of the file: some 20 MB


def make_features(job: FeatureJob, sources: Sequence[str] = ()) -> DataSet:
    """Measure the panels that ``job`` describes, or those of a data set, or bundles.

    Without ``job.shards.out`` the features of a data set are kept beside its points.

    Raises
    ------
    InputError
        When an option or a folder cannot be used.
    """
    if not sources:
        return _fused(job)
    if len(sources) == 1 and is_data_set(sources[0]):
        return _of_data_set(job, sources[0])
    return _of_bundles(job, sources)


def _of_data_set(job: FeatureJob, source: str) -> DataSet:
    data = open_data_set(source, PANELS)
    known = {name: data.about[name] for name in ("generator", "source") if name in data.about}
    key = fingerprint("features", data.about[PANELS], job.features, FEATURE_VERSION, *EXTRACTOR)
    store = Store(job.shards.out or source)
    write = partial(write_features, panels=data.store, config=job.features)
    looks = look_at_data_set(source, PANELS)
    with hold(store, wait=job.shards.wait), _recorded(job, store, [source], looks):
        done = run_shards(write, data.files(PANELS), store, FEATURES, key, "extract features", job)
        return _described(store, done, job, known)


def _fused(job: FeatureJob) -> DataSet:
    key = fingerprint("fused", job.panels, job.features, FEATURE_VERSION, *GENERATOR, *EXTRACTOR)
    store = data_folder(job.shards, key)
    blocks = plan_blocks(job.panels, job.shards.shard_size)
    write = partial(write_fused, panels=job.panels, config=job.features)
    with hold(store, wait=job.shards.wait), _recorded(job, store):
        done = run_shards(write, blocks, store, FEATURES, key, "generate and extract", job)
        return _described(store, done, job, {"generator": asdict(job.panels)})


def _of_bundles(job: FeatureJob, sources: Sequence[str]) -> DataSet:
    plan = plan_import(sources, job.bundles, job.shards.shard_size)
    key = fingerprint("bundles", plan.key, job.features, FEATURE_VERSION, *EXTRACTOR)
    store = data_folder(job.shards, key)
    write = partial(write_bundle_features, plan=plan.reading, config=job.features)
    looks = look_at_sources(sources, PANELS) | look_at_file(job.labels)
    with hold(store, wait=job.shards.wait), _recorded(job, store, sources, looks):
        done = run_shards(write, plan.shards, store, FEATURES, key, "read and extract", job)
        rejected = gather_rejects(store, FEATURES, done, plan)
        return _described(store, done, job, {"source": [*sources], "rejected": rejected})


def _recorded(
    job: FeatureJob, store: Store, sources: Sequence[str] = (), looks: dict[str, str] | None = None
) -> AbstractContextManager[OpenRecord]:
    return recorded(store, command_of("fpcb features", job, *sources, out=store), looks)


def _described(store: Store, done: Manifest, job: FeatureJob, known: dict[str, Any]) -> DataSet:
    more = known | {"feature_version": FEATURE_VERSION, "features_of": asdict(job.features)}
    data = describe(store, FEATURES, done, more)
    if (record := current()) is not None:
        record.known.headline = f"features of {data.n_panels:,} panels"
    return data


def write_fused(
    block: Block, store: Store, *, panels: GenerateConfig, config: FeatureConfig
) -> dict[str, Any]:
    """Generate one shard's panels and write their features."""
    parts = np.array_split(block.numbers, range(_CHUNK, block.numbers.size, _CHUNK))
    return _write(block.file, store, (generate(panels, part) for part in parts), config)


def write_features(
    name: str, store: Store, *, panels: Store, config: FeatureConfig
) -> dict[str, Any]:
    """Write the features of one file of panels, under the same name."""
    table = read_panels(panels, name)
    own = name.removeprefix(f"{PANELS}/")
    slices = (table.slice(at, _CHUNK) for at in range(0, len(table), _CHUNK))
    batches = (pair for part in slices for pair in to_batches(part, f"{panels}/{name}"))
    return _write(own, store, batches, config)


def write_bundle_features(
    shard: Shard, store: Store, *, plan: Reading, config: FeatureConfig
) -> dict[str, Any]:
    """Read one shard's bundles and write the features of the good ones."""
    table, rejects = plan.read(shard)
    summaries = [
        _write(file_name(split, scenario, shard.index), store, to_batches(part), config)
        for split, scenario, part in by_group(table)
    ]
    return joint_summary(summaries, write_rejects(shard, store, rejects))


def _write(
    name: str, store: Store, batches: Iterator[tuple[PanelBatch, pa.Table]], config: FeatureConfig
) -> dict[str, Any]:
    """Measure and write batch by batch, so that no more than one is in memory."""
    known, digests = [], []
    with store.open_output(name) as sink:
        writer = FeatureWriter(sink)
        for batch, truth in batches:
            found = extract(batch, config)
            beside = with_camera(truth, batch)
            writer.write(to_rows(found, beside))
            known.append(beside.select(["split", "scenario"]))
            digests.append(_digest(found, beside))
        writer.close()
    return summary_of(pa.concat_tables(known), [name], digests)


def with_camera(truth: pa.Table, batch: PanelBatch) -> pa.Table:
    """Add what the camera says of each panel, where the truth does not have it."""
    columns = {
        "n_points": batch.n_points,
        "fps": batch.fps,
        "metres_per_pixel": batch.metres_per_pixel,
    }
    for name, values in columns.items():
        if name not in truth.schema.names:
            truth = truth.append_column(name, pa.array(values))
    return truth


def _digest(found: Features, beside: pa.Table) -> str:
    return row_digests(beside, [*found.frame], [*found.panel], [*found.maps])
