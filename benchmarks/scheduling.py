"""How near the scheduler comes to the best that the machines could do, and what it costs.

    python -m benchmarks.scheduling simulate --nodes 1000 --units 100000 --seeds 3
    python -m benchmarks.scheduling replay RUN/path.parquet --nodes 2,4,8
    python -m benchmarks.scheduling unequal           # two real workers, one 4 x slower
    python -m benchmarks.scheduling flat --shards 10000
    python -m benchmarks.scheduling units --units 2000   # what the whole driver does a second

`simulate` drives the scheduler's own code through a cluster made of numbers, in which nodes of 1 x
to 20 x speed slow down, hang, die and join. The bound is all work at all speed that was there, or
the longest chain on the fastest node. `replay` does so with the units of a real run, and the
seconds that they took. The others run on an embedded Ray.
"""

import argparse
import statistics
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import ray

from benchmarks.scheduling_simulation import make_world, replayed_world, schedulers, simulate
from cluster.config import ClusterConfig
from cluster.connect import connect
from cluster.nodes import Cluster
from cluster.shards import map_shards
from cluster.storage import Store
from cluster.units import Unit, WorkerKind, solve_units

_MIB = 1 << 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    modes = parser.add_subparsers(dest="mode", required=True)
    simulated = modes.add_parser("simulate")
    simulated.add_argument("--nodes", type=int, default=1000)
    simulated.add_argument("--units", type=int, default=100_000)
    simulated.add_argument("--seeds", type=int, default=3)
    simulated.add_argument("--hints", default="0,0.3", help="errors of the costs told, or none")
    replayed = modes.add_parser("replay")
    replayed.add_argument("path", help="path.parquet of a run folder")
    replayed.add_argument("--nodes", default="2,4,8,16")
    replayed.add_argument("--seeds", type=int, default=5)
    unequal = modes.add_parser("unequal")
    unequal.add_argument("--units", type=int, default=60)
    unequal.add_argument("--ratio", type=float, default=4.0)
    flat = modes.add_parser("flat")
    flat.add_argument("--shards", type=int, default=10_000)
    units = modes.add_parser("units")
    units.add_argument("--units", type=int, default=2000)
    options = parser.parse_args()
    if options.mode == "simulate":
        print_simulations(options)
        return
    if options.mode == "replay":
        print_replays(options)
        return
    config = ClusterConfig(num_cpus=2, object_store_gib=0.3, dashboard=False)
    with connect(config) as cluster, tempfile.TemporaryDirectory() as folder:
        store = Store(folder)
        if options.mode == "unequal":
            print_unequal(cluster, store, options.units, options.ratio)
        elif options.mode == "flat":
            print_memory(cluster, store, options.shards)
        else:
            print_throughput(cluster, store, options.units)


def print_simulations(options: argparse.Namespace) -> None:
    """Print a row per error of the costs, seed and scheduler."""
    print("error of costs  seed  bound_s  scheduler  makespan/bound    calls  copies  µs/unit")
    for text in options.hints.split(","):
        hints = None if text == "none" else float(text)
        ratios: dict[str, list[float]] = {}
        for seed in range(options.seeds):
            world = make_world(seed, nodes=options.nodes, units=options.units, hints=hints)
            for name, driver in schedulers(world).items():
                outcome = simulate(world, driver)
                assert all(answers == 1 for answers in outcome.answers.values())
                ratio = outcome.makespan / world.bound
                ratios.setdefault(name, []).append(ratio)
                print(
                    f"{text:>14}  {seed:4d}  {world.bound:7.1f}  {name:>9}  {ratio:14.3f}  "
                    f"{outcome.calls:7d}  {outcome.copies:6d}  "
                    f"{1e6 * outcome.driver_s / options.units:7.1f}",
                    flush=True,
                )
        for name, values in ratios.items():
            print(f"{text:>14}  {name}: median {statistics.median(values):.3f}, "
                  f"worst {max(values):.3f}")  # fmt: skip


def print_replays(options: argparse.Namespace) -> None:
    """Print, for numbers of nodes, how far from the bound the units of a real run would end."""
    print("nodes  costs told  scheduler  makespan/bound: median  worst")
    for nodes in map(int, options.nodes.split(",")):
        for told in (True, False):
            ratios: dict[str, list[float]] = {}
            for seed in range(options.seeds):
                world = replayed_world(options.path, nodes=nodes, seed=seed, told=told)
                for name, driver in schedulers(world).items():
                    outcome = simulate(world, driver)
                    ratios.setdefault(name, []).append(outcome.makespan / world.bound)
            for name, values in ratios.items():
                print(f"{nodes:5d}  {told!s:>10}  {name:>9}  {statistics.median(values):22.3f}  "
                      f"{max(values):5.3f}")  # fmt: skip


@ray.remote(num_cpus=0)
class Sleeper:
    """Works as fast as told, whatever else the machine does: it sleeps."""

    def __init__(self, speed: float) -> None:
        self._speed = speed

    def solve(self, payload: dict, previous: dict | None) -> dict:
        began = time.monotonic()
        time.sleep(payload["work"] / self._speed)
        ended = time.monotonic()
        return {name: np.float64(value) for name, value in
                (("speed", self._speed), ("began", began), ("ended", ended))}  # fmt: skip


def print_unequal(cluster: Cluster, store: Store, count: int, ratio: float) -> float:
    """Solve units by two workers of unequal speed; return makespan over the ideal."""
    work = np.random.default_rng(0).lognormal(0.0, 0.5, count)
    units = [Unit(f"u{k}", {"work": float(w)}, cost=float(w)) for k, w in enumerate(work)]
    speeds = {"slow": 1.0, "fast": ratio}
    kinds = [
        WorkerKind(name=name, make_worker=lambda s=speed: Sleeper.remote(s), count=1)
        for name, speed in speeds.items()
    ]
    answers = solve_units(cluster, kinds, units, store, fingerprint="", label="unequal")
    # From when each worker was there: how long Ray takes to start one is not ours to schedule.
    began = {
        speed: min(float(a["began"]) for a in answers.values() if float(a["speed"]) == speed)
        for speed in speeds.values()
    }
    ends = max(float(answer["ended"]) for answer in answers.values())
    ideal = (float(work.sum()) + sum(s * b for s, b in began.items())) / sum(speeds.values())
    first = min(began.values())
    ratio_to_ideal = (ends - first) / (ideal - first)
    print(f"{count} units, speeds 1 and {ratio:g}: {ends - first:.2f} s, "
          f"ideal {ideal - first:.2f} s, ratio {ratio_to_ideal:.3f}")  # fmt: skip
    return ratio_to_ideal


def write_number(shard: int, store: Store) -> dict:
    name = f"{shard // 1000}/{shard}.bin"
    store.write_bytes(name, shard.to_bytes(8, "big"))
    return {"rows": 1, "files": [name]}


def print_memory(cluster: Cluster, store: Store, count: int) -> None:
    """Map tiny shards, and sample the driver's memory and the object store's use."""
    samples: list[tuple[int, float, float]] = []
    stop = threading.Event()
    manifest = Path(store.path) / "_manifest.jsonl"

    def watch() -> None:
        process = psutil.Process()
        while not stop.wait(1.0):
            done = manifest.read_bytes().count(b"\n") if manifest.exists() else 0
            samples.append((done, process.memory_info().rss / _MIB, store_use() / _MIB))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    started = time.monotonic()
    map_shards(cluster, write_number, range(count), store, fingerprint="", label="flat")
    seconds = time.monotonic() - started
    stop.set()
    thread.join()
    print(f"{count} shards in {seconds:.1f} s, {count / seconds:.0f}/s")
    print("  done  driver MiB  object store MiB")
    for done, driver, held in samples[:: max(1, len(samples) // 12)] + samples[-1:]:
        print(f"{done:6d}  {driver:10.1f}  {held:16.2f}")


def store_use() -> float:
    """Return the bytes that Ray's object store holds."""
    total, free = ray.cluster_resources(), ray.available_resources()
    return total.get("object_store_memory", 0.0) - free.get("object_store_memory", 0.0)


def print_throughput(cluster: Cluster, store: Store, count: int) -> None:
    """Solve units that take no time: what is left is the driver."""
    kind = WorkerKind(name="", make_worker=lambda: Sleeper.remote(1.0), count=2)
    units = [Unit(f"u{k}", {"work": 0.0}) for k in range(count)]
    started, cpu = time.monotonic(), time.process_time()
    solve_units(cluster, [kind], units, store, fingerprint="", label="units")
    seconds, cpu = time.monotonic() - started, time.process_time() - cpu
    print(f"{count} units in {seconds:.1f} s: {count / seconds:.0f}/s, "
          f"{1e6 * cpu / count:.0f} µs of the driver's CPU a unit")  # fmt: skip


if __name__ == "__main__":
    main()
