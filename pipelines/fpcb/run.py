"""Panels to cracked panels found, timed and placed: the recipe."""

from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from actors.memory_bank.reweight import Bank
from cluster.connect import connect
from cluster.fingerprint import fingerprint
from cluster.lock import hold
from cluster.meter import Meter
from cluster.nodes import Cluster
from cluster.run_record import recorded
from cluster.shards import map_shards
from cluster.storage import Store
from pipelines.fpcb.config import FeatureJob, ShardConfig
from pipelines.fpcb.dataset import FEATURES, DataSet, open_data_set
from pipelines.fpcb.detect_report.page import REPORT, write_detect_report
from pipelines.fpcb.detection.config import DREAM, PATCHCORE, RunJob, TrainJob
from pipelines.fpcb.detection.decisions import DECISION, Decision
from pipelines.fpcb.detection.detectors import About
from pipelines.fpcb.detection.patchcore import BANK
from pipelines.fpcb.evaluation.curves import ALL_CRACKED
from pipelines.fpcb.evaluation.ensemble import MAXIMUM
from pipelines.fpcb.evaluation.tables import curves, evaluate
from pipelines.fpcb.make_features import make_features
from pipelines.fpcb.pictures import choose_pictures, write_pictures
from pipelines.fpcb.score import SCORES, check_split, score_data, searched, write_scores
from pipelines.fpcb.stages import say
from pipelines.fpcb.train_detectors import describe_run, open_run, train_detectors
from pipelines.inputs import look_at_data_set
from pipelines.run_folder import command_of

METRICS = "metrics.json"


@dataclass(frozen=True)
class DetectorRun:
    """A finished run: its folder and its headline numbers."""

    folder: Store
    metrics: dict[str, Any]


def train(job: TrainJob, source: str) -> DetectorRun:
    """Train detectors on the features of ``source``; what is NG is learned on validation panels.

    Raises
    ------
    InputError
        When the data, an option, the run folder or the cluster cannot be used.
    """
    data = open_data_set(source, FEATURES)
    folder = open_run(job, data.about[FEATURES]["digest"])
    command = command_of("fpcb train", job, source, out=folder)
    looks = look_at_data_set(source, FEATURES)
    with (
        hold(folder, wait=job.run.wait),
        Meter() as meter,
        recorded(folder, command, looks, meter) as record,
        connect(job.cluster) as cluster,
    ):
        say(f"{cluster.describe()}\nrun folder {folder.uri}")
        describe_run(folder, asdict(job), data)
        _, decision = train_detectors(job, data, folder, cluster, meter)
        metrics = {"decision": folder.read_json(DECISION), "stages": meter.table()}
        record.known.headline = f"trained on {data.n_panels:,} panels"
    metrics["called"] = decision.thresholds["ensemble"].to_dict()
    return DetectorRun(folder, metrics)


def run(job: RunJob, source: str | None = None) -> DetectorRun:
    """Generate panels, or take the features of ``source``; train, score, decide, report.

    Raises
    ------
    InputError
        When the data, an option, the run folder or the cluster cannot be used.
    """
    folder = open_run(job.train, source or fingerprint(job.panels, job.features))
    command = command_of("fpcb run", job, *([source] if source else []), out=folder)
    looks = look_at_data_set(source, FEATURES) if source else {}
    with (
        hold(folder, wait=job.train.run.wait),
        Meter() as meter,
        recorded(folder, command, looks, meter) as record,
    ):
        for name in (METRICS, SCORES, REPORT):
            folder.delete(name)  # an earlier run's, maybe with other options
        with connect(job.train.cluster) as cluster:
            say(f"{cluster.describe()}\nrun folder {folder.uri}")
            with meter.stage("features"):
                data = _features(job, source, folder)
            check_split(data, "test")
            describe_run(folder, asdict(job), data)
            about, decision = train_detectors(job.train, data, folder, cluster, meter)
            with searched(cluster, folder, about) as bank:
                with meter.stage("score test"):
                    scores = _scores(job.train, data, folder, about, decision, cluster, bank)
                with meter.stage("pictures"):
                    _draw(data, folder, about, scores, cluster, bank)
        with meter.stage("evaluate"):
            found = _evaluated(scores, decision)
        metrics = found | _about_run(data, folder, about) | {
            "stages": meter.table(),
            "total_seconds": meter.total_seconds,
            "peak_gib": meter.peak_gib,
        }  # fmt: skip
        folder.write_json(METRICS, metrics)
        write_detect_report(folder)
        record.known.headline = _headline(metrics)
    return DetectorRun(folder, metrics)


def _headline(metrics: dict[str, Any]) -> str:
    """Return in one line how the ensemble did on the test panels."""
    panels = f"{metrics['data']['n_panels']:,} panels"
    cracked = metrics["test"]["detectors"]["ensemble"]["cracked"] if "test" in metrics else {}
    if ALL_CRACKED not in cracked:
        return panels
    return f"{panels}, PR AUC {cracked[ALL_CRACKED]['pr_auc']['value']:.3f}"


def _features(job: RunJob, source: str | None, folder: Store) -> DataSet:
    if source is not None:
        return open_data_set(source, FEATURES)
    shards = ShardConfig(out=(folder / "data").uri, workers=job.train.run.shard_workers)
    wanted = FeatureJob(
        panels=job.panels, features=job.features, shards=shards, cluster=job.train.cluster
    )
    return make_features(wanted)


def _scores(
    job: TrainJob,
    data: DataSet,
    folder: Store,
    about: About,
    decision: Decision,
    cluster: Cluster,
    bank: Bank | None,
) -> pa.Table:
    """Score validation panels, which training has done, and test panels; write all rows."""
    parts = [
        score_data(
            cluster, data, folder, about, bank, [split],
            label=f"score {label}", workers=job.run.shard_workers,
        )
        for split, label in (("val", "validation"), ("test", "test"))
    ]  # fmt: skip
    scores = decision.apply(pa.concat_tables(parts, promote_options="permissive"))
    write_scores(folder, scores)
    return scores


def _draw(
    data: DataSet,
    folder: Store,
    about: About,
    scores: pa.Table,
    cluster: Cluster,
    bank: Bank | None,
) -> None:
    """Have a worker draw what the report shows: the driver loads no network."""
    of_test = scores.filter(pc.equal(scores["split"], "test"))
    chosen = choose_pictures(of_test)
    draw = partial(write_pictures, data=data, run=folder, scores=of_test, bank=bank)
    key = fingerprint("pictures", about.key, chosen, data.about[FEATURES]["digest"])
    map_shards(cluster, draw, [chosen], folder, fingerprint=key, label="draw panels")


def _evaluated(scores: pa.Table, decision: Decision) -> dict[str, Any]:
    """Return the tables of both splits; thresholds come from validation alone."""
    if decision.ensemble.kind == MAXIMUM:
        scores = scores.drop_columns(["sure"])  # no probability without cracked panels to learn of
    found: dict[str, Any] = {
        split: evaluate(scores, decision.thresholds, split=split)
        for split in ("val", "test")
        if _labelled(scores, split)
    }
    return found | ({"curves": curves(scores)} if "test" in found else {})


def _labelled(scores: pa.Table, split: str) -> bool:
    """Whether there are good panels known as such: without, there is nothing to measure."""
    own = scores.filter(pc.equal(scores["split"], split))
    return bool(pc.any(pc.equal(own["label"], 0), min_count=0).as_py())


def _about_run(data: DataSet, folder: Store, about: About) -> dict[str, Any]:
    return {
        "decision": folder.read_json(DECISION),
        "training": folder.read_json("models/dream.json")["best"]
        if DREAM in about.detectors
        else None,
        "memory": folder.read_json(f"{BANK}.json") if PATCHCORE in about.detectors else None,
        "data": {
            "folder": data.store.uri,
            "n_panels": data.n_panels,
            "counts": data.about["counts"],
            "digest": data.about[FEATURES]["digest"],
        },
    }
