"""Train the detectors on good panels, and learn on validation panels what is called NG."""

import platform
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import numpy as np

from cluster.doctor import PACKAGES
from cluster.errors import InputError
from cluster.fingerprint import fingerprint
from cluster.meter import Meter
from cluster.nodes import Cluster
from cluster.storage import Store
from pipelines.fpcb.dataset import FEATURES, DataSet
from pipelines.fpcb.detection.cached import Panels, good_panels, open_features
from pipelines.fpcb.detection.config import DREAM, PATCHCORE, TrainJob
from pipelines.fpcb.detection.decisions import Decision, learn_decision
from pipelines.fpcb.detection.detectors import BASELINES, FILTER, About
from pipelines.fpcb.detection.kink_filter import KinkFilter
from pipelines.fpcb.detection.maps import filter_of
from pipelines.fpcb.detection.patchcore import build_memory, memory_key
from pipelines.fpcb.evaluation.baselines import BestFeature, Mahalanobis, panel_features
from pipelines.fpcb.features.store import column
from pipelines.fpcb.features.table import FEATURE_VERSION, names
from pipelines.fpcb.score import score_data, searched
from pipelines.fpcb.stages import say
from pipelines.run_folder import refuse_package_folder

LEAST_PANELS = 20
"""Good training panels: of fewer nothing is known about how good panels differ."""

_NOT_RESULTS = ("cluster", "run")


def train_detectors(
    job: TrainJob, data: DataSet, run: Store, cluster: Cluster, meter: Meter
) -> tuple[About, Decision]:
    """Train what ``job`` asks for; finished parts are reused.

    Raises
    ------
    InputError
        When there are no good training or validation panels, or features cannot be used.
    """
    with meter.stage("filter and baselines"):
        panels = good_panels(data, "train")
        if panels.size < LEAST_PANELS:
            fix = "Make or label more good panels."
            raise InputError(
                str(data.store), "too few good training panels", f"{LEAST_PANELS} or more",
                panels.size, fix,
            )  # fmt: skip
        good_panels(data, "val")  # refused now, not after an hour of training
        kink_filter = filter_of(data, panels)
        run.write_arrays(FILTER, **kink_filter.to_arrays())
        run.write_json(BASELINES, _baselines(data))
    keys = [_detector_key(name, job, data, kink_filter) for name in job.decision.detectors]
    about = About(
        detectors=job.decision.detectors,
        n_frames=panels.n_frames,
        places=kink_filter.places,
        feature_version=FEATURE_VERSION,
        features_of=data.about["features_of"],
        patches=asdict(job.patches),
        key=fingerprint("detectors", keys, asdict(job.patches)),
    )
    if PATCHCORE in job.decision.detectors:
        with meter.stage("PatchCore"):
            _train_patchcore(job, data, panels, run, cluster, kink_filter)
    if DREAM in job.decision.detectors:
        with meter.stage("DREAM"):
            _train_dream(job, data, run, cluster, kink_filter)
    about.save(run)
    with meter.stage("score validation"), searched(cluster, run, about) as bank:
        scores = score_data(
            cluster, data, run, about, bank, ["val"],
            label="score validation", workers=job.run.shard_workers,
        )  # fmt: skip
    decision = learn_decision(scores, job.decision)
    for name, threshold in decision.thresholds.items():
        if threshold.warning and name == "ensemble":
            say(f"warning: {threshold.warning}")
    decision.save(run)
    return about, decision


def open_run(job: TrainJob, data: str) -> Store:
    """Return the run folder: as asked for, or named by its options.

    Parameters
    ----------
    data : str
        What tells the data apart.
    """
    out = job.run.out
    refuse_package_folder(out)
    options = {name: part for name, part in asdict(job).items() if name not in _NOT_RESULTS}
    run = Store(out or f"runs/fpcb-{fingerprint(options, data)[:10]}")
    run.check_writable()
    return run


def describe_run(run: Store, options: dict[str, Any], data: DataSet) -> None:
    """Write options, versions and the fingerprint of the data."""
    versions = {name: version(name) for name in (*PACKAGES, *_OWN_PACKAGES)}
    run.write_json(
        "config.json",
        options
        | {
            "versions": versions | {"python": platform.python_version()},
            "fingerprints": {"features": data.about[FEATURES]["digest"]},
            "data": data.store.uri,
        },
    )


_OWN_PACKAGES = ("torch", "faiss-cpu", "safetensors")


def _detector_key(name: str, job: TrainJob, data: DataSet, kink_filter: KinkFilter) -> str:
    if name == PATCHCORE:
        digest = data.about[FEATURES]["digest"]
        return memory_key(digest, job.patches, kink_filter, job.dream.seed)
    return _dream().training_key(data, job.dream, kink_filter)


def _train_patchcore(
    job: TrainJob, data: DataSet, panels: Panels, run: Store, cluster: Cluster, seen: KinkFilter
) -> None:
    key = _detector_key(PATCHCORE, job, data, seen)
    size = build_memory(
        cluster, panels, run, job.patches, seen,
        key=key, seed=job.dream.seed, workers=job.run.shard_workers,
    )  # fmt: skip
    say(f"PatchCore: remembers {size:,} patches of {panels.size:,} good panels")


def _train_dream(
    job: TrainJob, data: DataSet, run: Store, cluster: Cluster, kink_filter: KinkFilter
) -> None:
    _dream().train_dream(cluster, data, run, job.dream, kink_filter)


def _dream() -> Any:
    """Return the module that trains DREAM; torch is not needed for PatchCore alone."""
    try:
        from pipelines.fpcb import train
    except ModuleNotFoundError as error:
        raise InputError(
            "--detectors", f"dream needs {error.name}", got="not installed",
            fix="pip install 'tenfold[fpcb]', or pass --detectors patchcore.",
        ) from error  # fmt: skip
    return train


def _baselines(data: DataSet) -> dict[str, Any]:
    """Fit the two baselines on training panels; the best feature needs cracked ones as well."""
    wanted = ["label", *(column("panel", name) for name in names("panel"))]
    features, labels = [], []
    for name in data.files(FEATURES):
        if name.startswith(f"{FEATURES}/split=train/"):
            rows = open_features(data.store, name).read(columns=wanted, use_threads=False)
            features.append(panel_features(rows))
            labels.append(rows["label"].to_numpy(zero_copy_only=False).astype(np.float64))
    measured, label = np.concatenate(features), np.concatenate(labels)
    known = np.isfinite(label)
    measured, label = measured[known], label[known].astype(np.int64)
    fitted: dict[str, Any] = {
        "mahalanobis": Mahalanobis.fit(measured[label == 0], names("panel")).to_dict()
    }
    if (label == 1).any():
        fitted["best_feature"] = BestFeature.fit(measured, label, names("panel")).to_dict()
    return fitted
