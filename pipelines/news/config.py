"""Every option of the news job, by stage."""

from dataclasses import dataclass, field, fields

from cluster.config import ClusterConfig, FolderConfig
from cluster.errors import InputError
from cluster.storage import Store
from pipelines.flags import build
from pipelines.news.design.matrix import SCALES
from pipelines.news.design.ngrams import NgramConfig
from pipelines.news.fitting.folds import FoldConfig
from pipelines.news.fitting.path import PathConfig
from pipelines.news.market.sessions import CalendarConfig
from pipelines.news.market.targets import TargetConfig
from pipelines.news.reading.ingest import InputConfig

# From this size on, what the n-grams save that are left out is worth the proof.
AUTO_DROP_GIB = 1.0


@dataclass(frozen=True, kw_only=True)
class DesignConfig:
    """How observations become the rows and columns of the design matrix."""

    observations: str = field(
        default="documents",
        metadata={
            "help": "A row is a document (documents), or all texts of a ticker and session (days)."
        },
    )
    scale: str = field(
        default="none", metadata={"help": f"Divide each column by: {', '.join(SCALES)}."}
    )
    early_drop: str = field(
        default="auto",
        metadata={
            "help": "Leave n-grams whose products with the targets are too small to enter out of "
            "the matrix, and prove along the path that they enter nowhere: on, off, or auto, which "
            f"does it where the matrix would take more than {AUTO_DROP_GIB:g} GiB. It saves memory "
            "and costs time; the dictionary is the same."
        },
    )
    shard_rows: int = field(default=20_000, metadata={"help": "Observations in one text shard."})

    def __post_init__(self) -> None:
        if self.observations not in ("documents", "days"):
            raise InputError(
                "--observations", "unknown", "documents or days", self.observations, "Pass one."
            )
        if self.scale not in SCALES:
            raise InputError("--scale", "unknown", " or ".join(SCALES), self.scale, "Pass one.")
        if self.early_drop not in ("auto", "on", "off"):
            raise InputError("--early-drop", "unknown", "auto, on or off", self.early_drop)
        if self.shard_rows < 1:
            raise InputError("--shard-rows", "too few", "1 or more", self.shard_rows, "Pass 20000.")


@dataclass(frozen=True, kw_only=True)
class RunConfig(FolderConfig):
    """Where the run is kept and how many workers solve it."""

    out: str | None = field(
        default=None,
        metadata={
            "help": "Run folder: a path or s3:// address; default runs/news-HASH, by the options, "
            "so that the same command resumes."
        },
    )
    workers: int | None = field(
        default=None, metadata={"help": "Solver actors; default one a core of the cluster."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.workers is not None and self.workers < 1:
            raise InputError("--workers", "too few", "1 or more", self.workers, "Leave it out.")


@dataclass(frozen=True, kw_only=True)
class NewsConfig:
    """The news job."""

    input: InputConfig
    calendar: CalendarConfig = field(default_factory=CalendarConfig)
    target: TargetConfig = field(default_factory=TargetConfig)
    ngrams: NgramConfig = field(default_factory=NgramConfig)
    design: DesignConfig = field(default_factory=DesignConfig)
    folds: FoldConfig = field(default_factory=FoldConfig)
    path: PathConfig = field(default_factory=PathConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    run: RunConfig = field(default_factory=RunConfig)

    @property
    def embargo(self) -> int:
        """Sessions between training and validation, so that no target of one overlaps the other's.

        A change of volume also looks as many sessions back as it looks ahead.
        """
        if self.folds.embargo is not None:
            return self.folds.embargo
        reach = 2 if "volume_change" in self.target.targets else 1
        overlap = reach * self.target.horizon + self.calendar.lags - 1
        return max(overlap, 1) if self.folds.fold_kind == "time" else overlap


def read_config(run: Store) -> NewsConfig:
    """Return the configuration that the run in this folder was started with."""
    saved = run.read_json("config.json")
    parts = [saved[field.name] for field in fields(NewsConfig)]
    flat = {key: value for part in parts for key, value in part.items()}
    lists = {key: tuple(value) if isinstance(value, list) else value for key, value in flat.items()}
    config: NewsConfig = build(NewsConfig, lists)
    return config
