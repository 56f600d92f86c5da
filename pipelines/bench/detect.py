"""`tenfold bench detect`: training, coresets and nearest neighbours beside their peers."""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cluster.config import ClusterConfig
from cluster.connect import connect
from cluster.errors import InputError
from cluster.storage import Store
from pipelines.bench.lasso import machine
from pipelines.fpcb.config import FeatureJob, ShardConfig
from pipelines.fpcb.dataset import FEATURES, open_data_set
from pipelines.fpcb.make_features import make_features
from pipelines.fpcb.stages import say
from pipelines.fpcb.synthesis.config import GenerateConfig

TABLES = ("training", "coreset", "search")


@dataclass(frozen=True, kw_only=True)
class DetectBenchConfig:
    """What is measured."""

    tables: tuple[str, ...] = field(
        default=TABLES, metadata={"help": f"Which of {', '.join(TABLES)}."}
    )
    data: str | None = field(
        default=None,
        metadata={"help": "Features that tabular DREAM is trained on; default 3,000 panels made."},
    )
    patches: int = field(default=1_000_000, metadata={"help": "Patches a coreset is chosen of."})
    bank: int = field(default=100_000, metadata={"help": "Patches that are searched."})
    queries: int = field(default=10_000, metadata={"help": "Patches whose neighbours are asked."})
    dim: int = field(default=81, metadata={"help": "Numbers of a patch."})
    runs: int = field(default=3, metadata={"help": "Runs that a search is the median of."})
    out: str = field(default="runs/bench-detect", metadata={"help": "Folder for the results."})
    cluster: ClusterConfig = field(default_factory=ClusterConfig)

    def __post_init__(self) -> None:
        if not self.tables or {*self.tables} - {*TABLES}:
            raise InputError("--tables", "unknown", ", ".join(TABLES), ",".join(self.tables))
        for name, least in (("patches", 1_000), ("bank", 100), ("queries", 1), ("dim", 2),
                            ("runs", 1)):  # fmt: skip
            if getattr(self, name) < least:
                raise InputError(f"--{name}", "too few", f"{least} or more", getattr(self, name))


def bench_detect(config: DetectBenchConfig) -> dict[str, Any]:
    """Measure each table in a process of its own, write ``results.json``, and return all."""
    Path(config.out).mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {"config": asdict(config), "machine": machine()}
    tables: dict[str, Callable[[DetectBenchConfig], list[dict[str, Any]]]] = {
        "training": _training,
        "coreset": _coreset,
        "search": _search,
    }
    if "training" in config.tables:
        _data(config)
    for name in config.tables:
        say(f"bench detect: {name}")
        # torch and FAISS each bring an OpenMP: not into one process.
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=spawn) as process:
            results[name] = process.submit(tables[name], config).result()
        Store(config.out).write_json("results.json", results)
    return results


def _data(config: DetectBenchConfig) -> str:
    """Return where the panels are, having made them where none were named."""
    if config.data is not None:
        open_data_set(config.data, FEATURES)
        return config.data
    out = f"{config.out}/panels"
    shards = ShardConfig(out=out)
    make_features(
        FeatureJob(panels=GenerateConfig(panels=3_000), shards=shards, cluster=config.cluster)
    )
    return out


def _training(config: DetectBenchConfig) -> list[dict[str, Any]]:
    from pipelines.bench.detect_training import training_table

    data = open_data_set(config.data or f"{config.out}/panels", FEATURES)
    rows = training_table(data)
    usual = rows[0]["rows_per_cpu_s"]
    return [row | {"ratio": row["rows_per_cpu_s"] / usual} for row in rows]


def _coreset(config: DetectBenchConfig) -> list[dict[str, Any]]:
    from pipelines.bench.detect_search import coreset_table

    return coreset_table(config.patches, config.dim)


def _search(config: DetectBenchConfig) -> list[dict[str, Any]]:
    from pipelines.bench.detect_search import search_table

    with connect(config.cluster) as cluster:
        store = Store(f"{config.out}/bank")
        return search_table(
            cluster, store, config.bank, config.dim, config.queries, runs=config.runs
        )
