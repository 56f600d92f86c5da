"""Every option of the fpcb stages that is not of one module alone."""

import math
from dataclasses import dataclass, field

from cluster.config import ClusterConfig, FolderConfig
from cluster.errors import InputError
from pipelines.fpcb.bundles.folders import ImportConfig
from pipelines.fpcb.features.extraction import FeatureConfig
from pipelines.fpcb.synthesis.config import GenerateConfig

# A shard is some seconds of work.
GENERATED_SHARD, BUNDLE_SHARD = 1_000, 200


@dataclass(frozen=True, kw_only=True)
class ShardConfig(FolderConfig):
    """Where a data set is kept, and how its making is cut."""

    out: str | None = field(
        default=None,
        metadata={
            "help": "Folder of the data set: a path or s3:// address; default data/fpcb-HASH, by "
            "the options, so that the same command resumes."
        },
    )
    workers: int | None = field(
        default=None, metadata={"help": "Shards made at a time; default one a core."}
    )
    shard_size: int | None = field(
        default=None,
        metadata={
            "help": "Panels of one shard, which is a task and, of generated panels, a file; "
            f"default {GENERATED_SHARD:,}, of bundles {BUNDLE_SHARD}."
        },
    )
    recompute: bool = field(
        default=False, metadata={"help": "Make everything again, finished or not."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for option, value in (("--workers", self.workers), ("--shard-size", self.shard_size)):
            if value is not None and value < 1:
                raise InputError(option, "too few", "1 or more", value, "Leave it out.")


@dataclass(frozen=True, kw_only=True)
class GenerateJob:
    """`tenfold fpcb generate`."""

    panels: GenerateConfig = field(default_factory=GenerateConfig)
    shards: ShardConfig = field(default_factory=ShardConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)


@dataclass(frozen=True, kw_only=True)
class FeatureJob:
    """`tenfold fpcb features`."""

    panels: GenerateConfig = field(default_factory=GenerateConfig)
    features: FeatureConfig = field(default_factory=FeatureConfig)
    labels: str | None = field(
        default=None,
        metadata={"help": "Of bundles: CSV name,label[,scenario,split].", "panel": "Bundles"},
    )
    bundle_fps: float | None = field(
        default=None,
        metadata={"help": "Frames per second of bundles without fps.txt.", "panel": "Bundles"},
    )
    metres_per_pixel: float | None = field(
        default=None,
        metadata={"help": "Of bundles whose metadata.json does not say.", "panel": "Bundles"},
    )
    assign_splits: bool = field(
        default=False,
        metadata={
            "help": "Give bundles without a split one: 70 % train, 15 % val, 15 % test.",
            "panel": "Bundles",
        },
    )
    shards: ShardConfig = field(default_factory=ShardConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)

    def __post_init__(self) -> None:
        if self.bundle_fps is not None and not 0 < self.bundle_fps < math.inf:
            raise InputError("--bundle-fps", "not usable", "a positive number", self.bundle_fps)
        self.bundles  # noqa: B018 - refuses what it cannot use

    @property
    def bundles(self) -> ImportConfig:
        """How bundles are read."""
        return ImportConfig(
            labels=self.labels,
            fps=self.bundle_fps,
            metres_per_pixel=self.metres_per_pixel,
            assign_splits=self.assign_splits,
        )


@dataclass(frozen=True, kw_only=True)
class ImportJob:
    """`tenfold fpcb import`."""

    bundles: ImportConfig = field(default_factory=ImportConfig)
    shards: ShardConfig = field(default_factory=ShardConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)


@dataclass(frozen=True, kw_only=True)
class ExportJob:
    """`tenfold fpcb export`."""

    out: str = field(metadata={"help": "Folder that the bundles are written to, one folder each."})

    def __post_init__(self) -> None:
        if not self.out.strip() or "://" in self.out:
            raise InputError("--out", "no local folder", got=self.out, fix="Name a folder.")
