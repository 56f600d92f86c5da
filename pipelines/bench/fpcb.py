"""`tenfold bench fpcb`: panels per CPU second of each stage, and whole data sets through Ray."""

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from cluster.config import ClusterConfig
from cluster.connect import connect
from cluster.errors import InputError
from cluster.meter import Meter
from cluster.storage import Store
from cluster.threads import limited_threads
from pipelines.bench.lasso import machine
from pipelines.fpcb.bundles.folders import export_bundles, find_bundles, read_bundles
from pipelines.fpcb.config import FeatureJob, ShardConfig
from pipelines.fpcb.features.extraction import FeatureConfig, extract
from pipelines.fpcb.generate import Block, write_block
from pipelines.fpcb.make_features import make_features, write_fused
from pipelines.fpcb.panel_table import to_table
from pipelines.fpcb.stages import say
from pipelines.fpcb.synthesis.config import GenerateConfig
from pipelines.fpcb.synthesis.generator import generate

# Panels per CPU second of the practice that this job replaces: one core, 60 frames, as reported.
PRACTICE = {"generate": 13.0, "extract": 9.5, "read bundles": 8.5}
_GIB = 1 << 30
_WARM_UP = 32


@dataclass(frozen=True, kw_only=True)
class FpcbBenchConfig:
    """What is measured."""

    panels: int = field(
        default=1_000, metadata={"help": "Panels that each stage is timed on, in one process."}
    )
    bundles: int = field(default=200, metadata={"help": "Bundles written and read back."})
    whole: int = field(
        default=5_000,
        metadata={"help": "Panels generated and measured through Ray, by 1 worker and by all."},
    )
    runs: int = field(default=3, metadata={"help": "Runs that a figure is the median of."})
    out: str = field(default="runs/bench-fpcb", metadata={"help": "Folder for the results."})
    cluster: ClusterConfig = field(default_factory=ClusterConfig)

    def __post_init__(self) -> None:
        for name in ("panels", "bundles", "whole", "runs"):
            if getattr(self, name) < 1:
                raise InputError(f"--{name}", "too few", "1 or more", getattr(self, name))


def bench_fpcb(config: FpcbBenchConfig) -> dict[str, Any]:
    """Measure, write ``results.json``, and return all."""
    Path(config.out).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=config.out, prefix="data-") as folder:
        with limited_threads(1):
            stages = _stages(config, Store(folder))
        whole = _whole(config, folder)
    results = {
        "stages": stages,
        "whole": whole,
        "machine": machine(),
        "options": asdict(config),
    }
    Store(config.out).write_json("results.json", results)
    return results


def _stages(config: FpcbBenchConfig, store: Store) -> list[dict[str, Any]]:
    """Time each stage in this process, on one thread."""
    made = GenerateConfig(panels=max(config.panels, config.bundles))
    numbers = np.arange(config.panels, dtype=np.int64)
    extract(generate(made, numbers[:_WARM_UP])[0])
    batch, _ = generate(made, numbers)
    block = Block("train", "normal", 0, numbers)
    rows = [
        _row("generate", config.panels, config.runs, lambda: generate(made, numbers)),
        _row("extract", config.panels, config.runs, lambda: extract(batch)),
        _row(
            "generate, write points",
            config.panels,
            config.runs,
            lambda: write_block(block, store / "points", config=made),
            store / "points",
        ),
        _row(
            "generate, extract, write features",
            config.panels,
            config.runs,
            lambda: write_fused(block, store / "fused", panels=made, config=FeatureConfig()),
            store / "fused",
        ),
    ]
    if not store.is_local:
        return rows
    table = to_table(*generate(made, np.arange(config.bundles)))
    folder = str(Path(store.path) / "bundles")
    rows.append(_row("write bundles", config.bundles, 1, lambda: export_bundles(table, folder)))
    found, _ = find_bundles([folder])
    rows.append(_row("read bundles", config.bundles, config.runs, lambda: read_bundles(found)))
    return rows


def _row(
    stage: str, panels: int, runs: int, work: Callable[[], object], written: Store | None = None
) -> dict[str, Any]:
    seconds = []
    for _ in range(runs):
        started = time.process_time()
        work()
        seconds.append(time.process_time() - started)
    rate = panels / statistics.median(seconds)
    sizes = [] if written is None else [written.size(name) or 0 for name in written.list()]
    practice = PRACTICE.get(stage)
    row = {
        "stage": stage,
        "panels": panels,
        "panels per CPU s": rate,
        "practice": practice,
        "ratio": rate / practice if practice else None,
        "bytes a panel": sum(sizes) / panels if sizes else None,
    }
    say(f"{stage}: {rate:,.0f} panels per CPU second")
    return row


def _whole(config: FpcbBenchConfig, folder: str) -> list[dict[str, Any]]:
    """Generate and measure a data set through Ray, by one worker, by all, and once more."""
    rows = []
    with connect(config.cluster) as cluster:
        cores = int(max(1, cluster.cores))
        shard_size = max(1, min(1_000, config.whole // (4 * cores)))
        job = FeatureJob(
            panels=GenerateConfig(panels=config.whole),
            shards=ShardConfig(out=f"{folder}/warm", shard_size=shard_size),
            cluster=config.cluster,
        )
        # The first tasks import what they need; a long run does not notice.
        make_features(replace(job, panels=GenerateConfig(panels=8 * cores)))
        for name, workers in (("1 worker", 1), (f"{cores} workers", cores), ("again", cores)):
            out = f"{folder}/{cores if name == 'again' else workers}"
            shards = ShardConfig(out=out, shard_size=shard_size, workers=workers)
            with Meter() as meter:
                with meter.stage(name):
                    made = make_features(replace(job, shards=shards))
                use = meter.stages[0]
            rows.append(
                {
                    "run": name,
                    "panels": config.whole,
                    "wall s": use.seconds,
                    "CPU s": use.cpu_seconds,
                    "panels/s": config.whole / use.seconds,
                    "GiB a worker": use.largest_worker_gib,
                    "GiB written": made.about["features"]["bytes"] / _GIB,
                    "digest": made.about["features"]["digest"],
                }
            )
            say(f"{name}: {rows[-1]['panels/s']:,.0f} panels/s")
    return rows
