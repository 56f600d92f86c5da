"""Score panels: features at hand, points, or bundles; a row a panel, shard by shard.

FOLDER/work/scores/…     rows of each shard, and a manifest of finished shards
FOLDER/scores.parquet    all rows, decided: or scores.csv
FOLDER/rejects.csv       bundles that could not be read
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.csv

from actors.memory_bank.actor import ShardedBank
from actors.memory_bank.reweight import Bank
from cluster.connect import connect
from cluster.errors import InputError
from cluster.fingerprint import fingerprint
from cluster.lock import hold
from cluster.manifest import Manifest
from cluster.nodes import Cluster
from cluster.run_record import recorded
from cluster.shards import map_shards
from cluster.storage import Store
from pipelines.fpcb.dataset import (
    FEATURES,
    PANELS,
    REJECTS_OF_SHARD,
    DataSet,
    has_part,
    is_data_set,
    open_data_set,
)
from pipelines.fpcb.detection import cached, detectors, localise
from pipelines.fpcb.detection.cached import check_version, open_features
from pipelines.fpcb.detection.config import PATCHCORE, ScoreJob
from pipelines.fpcb.detection.decisions import Decision
from pipelines.fpcb.detection.detectors import ABOUT, About, load_detectors
from pipelines.fpcb.detection.patchcore import BANK
from pipelines.fpcb.exchange import Reading, Shard, gather_rejects, plan_import, write_rejects
from pipelines.fpcb.features.extraction import FeatureConfig, extract
from pipelines.fpcb.features.store import to_rows
from pipelines.fpcb.make_features import with_camera
from pipelines.fpcb.panel_table import read_panels, to_batches
from pipelines.fpcb.stages import say
from pipelines.inputs import look_at_file, look_at_sources
from pipelines.run_folder import command_of

SCORES = "scores.parquet"
CODE = (cached, detectors, localise)

_CHUNK = 250  # panels measured and scored at a time


def score(job: ScoreJob, run_folder: str, sources: Sequence[str]) -> tuple[Store, pa.Table]:
    """Score the panels of ``sources`` with the detectors of a run.

    Raises
    ------
    InputError
        When the run, the sources or the output cannot be used.
    """
    run, out = Store(run_folder), Store(job.out)
    about, decision = About.load(run), Decision.load(run)
    load_detectors(run, None)  # damaged files are found before any work begins
    command = command_of("fpcb score", job, run_folder, *sources, out=out)
    looks = look_at_sources(sources, FEATURES) | look_at_file(job.labels)
    looks |= look_at_file(f"{run_folder}/{ABOUT}")
    with hold(out, wait=job.wait), recorded(out, command, looks) as record:
        with connect(job.cluster) as cluster, searched(cluster, run, about) as bank:
            say(f"{cluster.describe()}\nscores in {out.uri}")
            rows = _score_sources(cluster, job, run, about, bank, sources, out)
        decided = decision.apply(rows)
        write_scores(out, decided, job.format)
        called = int(decided["called_ng"].to_numpy().sum())
        record.known.headline = f"{len(decided):,} panels, {called:,} called NG"
    return out, decided


def score_data(
    cluster: Cluster,
    data: DataSet,
    run: Store,
    about: About,
    bank: Bank | None,
    splits: Sequence[str] | None = None,
    *,
    out: Store | None = None,
    label: str = "score",
    workers: int | None = None,
) -> pa.Table:
    """Score the features of a data set, of some splits or all; rows without a decision.

    Raises
    ------
    InputError
        When there are none, or of another version.
    """
    check_version(data)
    names = _names(data, splits)
    if not names:
        raise InputError(
            str(data.store), "no panels", f"panels of split {' or '.join(splits or ['any'])}",
            "none", "Name the split of each panel, or make more panels.",
        )  # fmt: skip
    work = partial(_score_file, data=data.store, run=run, bank=bank)
    key = fingerprint("score", about.key, data.about[FEATURES]["digest"], names, *CODE)
    store = (out or run) / "work/scores" / key[:10]
    done = map_shards(
        cluster, work, names, store, fingerprint=key, label=label, max_in_flight=workers,
        verify=True,
    )  # fmt: skip
    return gathered(done)


def check_split(data: DataSet, split: str) -> None:
    """Raise InputError when no panel is of ``split``: better now than after training."""
    if not _names(data, [split]):
        raise InputError(
            str(data.store),
            "no panels",
            f"panels of split {split!r}",
            "none",
            "Import with --assign-splits, or use `tenfold fpcb train`, which needs no test panels.",
        )


def gathered(done: Manifest) -> pa.Table:
    """Return the rows of all shards, in the order of the panels' numbers."""
    names = [name for name in done.files if not name.startswith(REJECTS_OF_SHARD)]
    tables = [done.store.read_table(name) for name in names]
    rows = pa.concat_tables(tables, promote_options="permissive")
    return rows.sort_by("number") if "number" in rows.column_names else rows


def write_scores(out: Store, rows: pa.Table, kind: str = "parquet") -> str:
    """Write a row a panel; returns the name of the file."""
    if kind == "parquet":
        out.write_table(SCORES, rows)
        return SCORES
    flat = rows.select([n for n in rows.column_names if not pa.types.is_nested(rows[n].type)])
    with out.open_output("scores.csv") as sink:
        pa.csv.write_csv(flat, sink)
    return "scores.csv"


def searched(cluster: Cluster, run: Store, about: About) -> AbstractContextManager[Bank | None]:
    """Open the memory bank of a run for the length of a block; None without PatchCore."""
    if PATCHCORE not in about.detectors:
        return nullcontext()
    # Half a core: searching takes a small share of the time of those who ask and wait.
    return ShardedBank.open(cluster, run, BANK, actors=about.patches["bank_actors"])


def _names(data: DataSet, splits: Sequence[str] | None) -> list[str]:
    names = data.files(FEATURES)
    if splits is None:
        return names
    return [n for n in names if n.split("/")[1].removeprefix("split=") in splits]


def _score_sources(
    cluster: Cluster,
    job: ScoreJob,
    run: Store,
    about: About,
    bank: Bank | None,
    sources: Sequence[str],
    out: Store,
) -> pa.Table:
    if len(sources) == 1 and is_data_set(sources[0]):
        if has_part(sources[0], FEATURES) or not has_part(sources[0], PANELS):
            data = open_data_set(sources[0], FEATURES)
            return score_data(cluster, data, run, about, bank, out=out, workers=job.shard_workers)
        panels = open_data_set(sources[0], PANELS)
        work: Any = partial(_score_panels, panels=panels.store, run=run, bank=bank)
        shards: Sequence[Any] = panels.files(PANELS)
        key = fingerprint("score panels", about.key, panels.about[PANELS], *CODE)
        plan = None
    else:
        plan = plan_import(sources, job.bundles, None)
        work = partial(_score_bundles, plan=plan.reading, run=run, bank=bank)
        shards = plan.shards
        key = fingerprint("score bundles", about.key, plan.key, *CODE)
    store = out / "work/scores" / key[:10]
    done = map_shards(
        cluster, work, shards, store, fingerprint=key, label="read, measure, score",
        max_in_flight=job.shard_workers, verify=True,
    )  # fmt: skip
    if plan is not None:
        gather_rejects(out, f"work/scores/{key[:10]}", done, plan)
    return gathered(done)


def _score_file(
    name: str, store: Store, *, data: Store, run: Store, bank: Bank | None
) -> dict[str, Any]:
    """Score one file of features, row group by row group."""
    trained = load_detectors(run, bank)
    file = open_features(data, name)
    columns = trained.columns(file.schema_arrow.names)
    groups = (
        file.read_row_group(group, columns=columns, use_threads=False)
        for group in range(file.num_row_groups)
    )
    own = name.removeprefix(f"{FEATURES}/")
    return _write(own, store, (trained.score(rows, f"{data}/{name}") for rows in groups))


def _score_panels(
    name: str, store: Store, *, panels: Store, run: Store, bank: Bank | None
) -> dict[str, Any]:
    """Measure and score one file of points."""
    trained = load_detectors(run, bank)
    table = read_panels(panels, name)
    slices = (table.slice(at, _CHUNK) for at in range(0, len(table), _CHUNK))
    where = f"{panels}/{name}"
    rows = (_scored(trained, part, where) for part in slices)
    return _write(name.removeprefix(f"{PANELS}/"), store, rows)


def _score_bundles(
    shard: Shard, store: Store, *, plan: Reading, run: Store, bank: Bank | None
) -> dict[str, Any]:
    """Read, measure and score one shard's bundles; those that cannot be read are listed."""
    trained = load_detectors(run, bank)
    table, rejects = plan.read(shard)
    rows = iter([_scored(trained, table, "bundles")] if len(table) else [])
    summary = _write(f"{shard.index:05d}.parquet", store, rows)
    summary["files"] += write_rejects(shard, store, rejects)
    return summary


def _scored(trained: detectors.Detectors, panels: pa.Table, where: str) -> pa.Table:
    config = FeatureConfig(**trained.about.features_of)
    parts = [
        trained.score(to_rows(extract(batch, config), with_camera(truth, batch)), where)
        for batch, truth in to_batches(panels, where)
    ]
    return pa.concat_tables(parts, promote_options="permissive")


def _write(name: str, store: Store, tables: Iterator[pa.Table]) -> dict[str, Any]:
    parts = [*tables]
    if not parts:
        return {"rows": 0, "files": []}
    whole = pa.concat_tables(parts, promote_options="permissive")
    store.write_table(name, whole)
    return {"rows": len(whole), "files": [name]}
