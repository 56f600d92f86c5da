"""What a second machine brings, and what surviving kills costs.

Run: ``python -m benchmarks.raylets [--runs 3] [--panels 24000] [--documents 12000]``

Raylets of one core each stand for machines; the head has none. Both jobs run on one raylet and on
two in turns, as a user would start them, on machines that are up and idle; the seconds are those of
their distributed stage, the start of its workers among them. Beside them stand the CPU seconds of
the whole run, two raylets to one, and what the hypervisor gave to others meanwhile, of all cores.

Then the shards of one stage are done by `map_shards`, and by bare Ray tasks that keep no manifest,
compare no checksum and know no retry; the two take turns, on the same embedded Ray.
"""

import argparse
import re
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import psutil
import ray

from cluster.config import ClusterConfig
from cluster.connect import connect
from cluster.nodes import Cluster
from cluster.run_record import read_record
from cluster.shards import map_shards
from cluster.storage import Store
from pipelines.fpcb.features.extraction import FeatureConfig
from pipelines.fpcb.generate import plan_blocks
from pipelines.fpcb.make_features import write_fused
from pipelines.fpcb.synthesis.config import GenerateConfig
from pipelines.news.synthetic import SyntheticConfig, write_market

ROOT = Path(__file__).resolve().parent.parent
STAGES = {"news": "solve path", "fpcb": "generate and extract"}
_COST_SHARE = 4  # many short pairs say more than a few long ones
_SETTLE_S, _IDLE_PERCENT = 60.0, 10.0


class Used(NamedTuple):
    """Wall seconds of a job's distributed stage, and CPU seconds of all of the job."""

    seconds: float
    cpu_seconds: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--panels", type=int, default=24_000)
    parser.add_argument("--documents", type=int, default=12_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_market(SyntheticConfig(documents=options.documents), Path(folder) / "market")
        print("| job | stage | 1 raylet, s | 2 raylets, s | throughput | pairs | CPU | taken |")
        print("|---|---|---|---|---|---|---|---|")
        for job, stage in STAGES.items():
            before = psutil.cpu_times()
            # runs x (one, two) x (wall, CPU)
            used = np.array([
                [used_on(count, job, Path(folder), options) for count in (1, 2)]
                for _ in range(options.runs)
            ])  # fmt: skip
            one, two = np.median(used[..., 0], axis=0)
            ratios = used[:, 0, 0] / used[:, 1, 0]
            cpu, taken = np.median(used[:, 1, 1] / used[:, 0, 1]), taken_since(before)
            print(
                f"| {job} | {stage} | {one:.1f} | {two:.1f} | {np.median(ratios):.2f} x | "
                f"{min(ratios):.2f} to {max(ratios):.2f} | {cpu:.2f} x | {taken:.0%} |",
                flush=True,
            )
        print_cost(options, Path(folder))


def used_on(raylets: int, job: str, folder: Path, options: argparse.Namespace) -> Used:
    """Run ``job`` on so many raylets of one core; return what it took."""
    sys.path.insert(0, str(ROOT / "tests"))
    from raylets import Raylets

    market = [f"--{name}={folder}/market/{name}.parquet" for name in ("news", "prices")]
    arguments = {
        "news": ["news", "fit", *market, "--targets=return,log_range", "--alpha-ratio=100"],
        "fpcb": ["fpcb", "features", f"--panels={options.panels}", "--shard-size=200"],
    }[job]
    with Raylets() as cluster, tempfile.TemporaryDirectory() as out:
        cluster.head(0)
        for number in range(raylets):
            cluster.join(f"cpu{number}", 1)
        wait_until_idle()
        command = [sys.executable, "-m", "pipelines", *arguments, "--out", f"{out}/run"]
        done = subprocess.run(
            command, env=cluster.environment(), cwd=ROOT, capture_output=True, text=True
        )
        record = read_record(Store(f"{out}/run"))
    found = re.search(rf"{STAGES[job]}: (\d+)/\1 \w+ · ([\d.]+) s", done.stderr)
    if done.returncode or found is None or record is None:
        raise RuntimeError(done.stderr)
    return Used(float(found[2]), record.cpu_seconds)


def taken_since(before: Any) -> float:
    """Return the share of all cores' time that the hypervisor gave to others."""
    spent = [now - then for now, then in zip(psutil.cpu_times(), before, strict=True)]
    return float(spent[before._fields.index("steal")] / sum(spent))


def wait_until_idle() -> None:
    """Wait until Ray's own services have started: they take seconds of every core."""
    deadline = time.monotonic() + _SETTLE_S
    while psutil.cpu_percent(2.0) > _IDLE_PERCENT and time.monotonic() < deadline:
        pass


def print_cost(options: argparse.Namespace, folder: Path) -> None:
    """Time one stage with and without what makes it survive, in turns."""
    config = GenerateConfig(panels=options.panels // _COST_SHARE)
    blocks = plan_blocks(config, 200)
    write = partial(write_fused, panels=config, config=FeatureConfig())
    used: dict[str, list[tuple[float, float]]] = {name: [] for name in WAYS}
    with connect(ClusterConfig(num_cpus=2, object_store_gib=0.5)) as cluster:
        for number in range(-1, _COST_SHARE * options.runs):
            for name, way in WAYS.items():
                started = time.perf_counter(), cpu_seconds()
                way(cluster, write, blocks, Store(folder / f"{name} {number}"))
                ended = time.perf_counter(), cpu_seconds()
                if number >= 0:  # before, workers start and libraries load
                    used[name].append((ended[0] - started[0], ended[1] - started[1]))
    print(f"\nfault tolerance, {len(blocks)} shards")
    for at, what in enumerate(("wall", "CPU")):
        bare_s, own_s = ([pair[at] for pair in used[name]] for name in WAYS)
        ratios = np.divide(own_s, bare_s)
        low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
        print(
            f"{what}: {median(own_s):.2f} s, bare Ray tasks {median(bare_s):.2f} s: "
            f"{middle:.3f} x, quartiles {low:.3f} and {high:.3f} of {ratios.size} pairs"
        )


def cpu_seconds() -> float:
    """Return what this process and its raylet's workers have used so far."""
    mine = psutil.Process()
    times = [process.cpu_times() for process in (mine, *mine.children(recursive=True))]
    return sum(one.user + one.system for one in times)


def surviving(cluster: Cluster, write: Any, blocks: list, store: Store) -> None:
    map_shards(cluster, write, blocks, store, fingerprint="benchmark", label="features")


def bare(cluster: Cluster, write: Any, blocks: list, store: Store) -> None:
    @ray.remote(num_cpus=1, max_retries=0)
    def call(block: Any) -> Any:
        return write(block, store)

    running = [call.remote(block) for block in blocks]
    while running:
        done, running = ray.wait(running)
        ray.get(done)


WAYS = {"bare": bare, "map_shards": surviving}

if __name__ == "__main__":
    main()
