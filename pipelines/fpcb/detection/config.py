"""Options of the detectors' stages: train, score, run."""

from dataclasses import dataclass, field
from typing import Literal

from cluster.config import ClusterConfig, FolderConfig
from cluster.errors import InputError
from pipelines.fpcb.bundles.folders import ImportConfig
from pipelines.fpcb.detection.patches import PatchCoreConfig
from pipelines.fpcb.dream.train_config import DreamConfig
from pipelines.fpcb.features.extraction import FeatureConfig
from pipelines.fpcb.synthesis.config import GenerateConfig

DREAM, PATCHCORE = "dream", "patchcore"
DETECTORS = (DREAM, PATCHCORE)


@dataclass(frozen=True, kw_only=True)
class DecisionConfig:
    """Which panels are called NG."""

    detectors: tuple[str, ...] = field(
        default=DETECTORS, metadata={"help": "Detectors to train: dream, patchcore or both."}
    )
    false_alarms: float = field(
        default=0.0005,
        metadata={"help": "Share of good panels that may be called NG, held on validation panels."},
    )
    ng_precision: float | None = field(
        default=None,
        metadata={
            "help": "Share of panels called NG that must be cracked, in place of --false-alarms."
        },
    )
    prevalence: float | None = field(
        default=None,
        metadata={"help": "Share of cracked panels on the line that --ng-precision is meant for."},
    )

    def __post_init__(self) -> None:
        if not self.detectors or {*self.detectors} - {*DETECTORS}:
            raise InputError("--detectors", "unknown", "dream, patchcore or both, by commas",
                             ",".join(self.detectors), "Leave it out for both.")  # fmt: skip
        for name in ("false_alarms", "ng_precision", "prevalence"):
            value = getattr(self, name)
            if value is not None and not 0 < value < 1:
                raise InputError(f"--{name.replace('_', '-')}", "no share", "between 0 and 1",
                                 value)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class RunFolderConfig(FolderConfig):
    """Where a run is kept, and how its work is cut."""

    out: str | None = field(
        default=None,
        metadata={
            "help": "Run folder: a path or s3:// address; default runs/fpcb-HASH, by the options, "
            "so that the same command resumes."
        },
    )
    shard_workers: int | None = field(
        default=None, metadata={"help": "Shards worked on at a time; default one a core."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.shard_workers is not None and self.shard_workers < 1:
            raise InputError("--shard-workers", "too few", "1 or more", self.shard_workers)


@dataclass(frozen=True, kw_only=True)
class TrainJob:
    """`tenfold fpcb train`: detectors from the features of a data set."""

    decision: DecisionConfig = field(default_factory=DecisionConfig)
    dream: DreamConfig = field(default_factory=DreamConfig)
    patches: PatchCoreConfig = field(default_factory=PatchCoreConfig)
    run: RunFolderConfig = field(default_factory=RunFolderConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)


@dataclass(frozen=True, kw_only=True)
class RunJob:
    """`tenfold fpcb run`: panels generated, or features at hand, to a scored test set."""

    # Its seed is --panel-seed: --seed is that of training.
    panels: GenerateConfig = field(default_factory=GenerateConfig)
    features: FeatureConfig = field(default_factory=FeatureConfig)
    train: TrainJob = field(default_factory=TrainJob)


@dataclass(frozen=True, kw_only=True)
class ScoreJob(FolderConfig):
    """`tenfold fpcb score`: a row a panel, from a trained run and panels of any kind."""

    out: str = field(
        default="scores",
        metadata={"help": "Folder of scores.parquet and rejects.csv: a path or s3:// address."},
    )
    format: Literal["parquet", "csv"] = field(
        default="parquet", metadata={"help": "Of the scores: parquet, or csv."}
    )
    labels: str | None = field(
        default=None, metadata={"help": "Of bundles: CSV name,label[,scenario,split]."}
    )
    bundle_fps: float | None = field(
        default=None, metadata={"help": "Frames per second of bundles without fps.txt."}
    )
    metres_per_pixel: float | None = field(
        default=None, metadata={"help": "Of bundles whose metadata.json does not say."}
    )
    shard_workers: int | None = field(
        default=None, metadata={"help": "Shards scored at a time; default one a core."}
    )
    cluster: ClusterConfig = field(default_factory=ClusterConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.bundles  # noqa: B018 - refuses what it cannot use

    @property
    def bundles(self) -> ImportConfig:
        """How bundles are read."""
        return ImportConfig(
            labels=self.labels, fps=self.bundle_fps, metres_per_pixel=self.metres_per_pixel
        )
