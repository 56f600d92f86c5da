"""A driver on a mixed cluster, run by test_placement: says where work landed, fits two ways."""

import json
import os
import shutil
import sys
import warnings
from pathlib import Path

import ray

from cluster.connect import connect
from cluster.errors import InputError
from cluster.resources import engine_resources
from pipelines.flags import build
from pipelines.fpcb.train import scaling
from pipelines.news.config import NewsConfig
from pipelines.news.run import fit

TRIES = 2


class Anything:
    """An actor of whatever engine."""

    def where(self):
        return ray.get_runtime_context().get_node_id(), os.environ.get("CUDA_VISIBLE_DEVICES")


def landed(engine, names):
    """Return the nodes on which actors of an engine ran, and the CUDA devices they were given."""
    found = []
    for _ in range(TRIES):
        actor = ray.remote(Anything).options(**engine_resources(engine, num_cpus=0)).remote()
        found.append(ray.get(actor.where.remote(), timeout=60))
        ray.kill(actor)
    return sorted({names[node] for node, _ in found}), found[0][1]


def trained_on(names):
    """Return the node of a worker of Ray Train on CUDA."""
    bundle = scaling(1, engine_resources("torch:cuda", num_cpus=0)).total_resources
    group = ray.util.placement_group([bundle])
    ray.get(group.ready(), timeout=60)
    (node,) = ray.util.placement_group_table(group)["bundles_to_node_id"].values()
    ray.util.remove_placement_group(group)
    return names[node]


def main(folder, options):
    def solve(engine):
        """Return the units that each engine solved; all runs share their first stages."""
        files = {name: str(folder / f"{name}.parquet") for name in ("news", "prices")}
        where = {"out": str(folder / "run"), "engine": engine}
        run = fit(build(NewsConfig, options | files | where))
        shutil.copy(folder / "run" / "dictionary.parquet", folder / f"{engine}.parquet")
        return run.metrics["units"]

    with connect():
        nodes = {node["NodeName"]: node for node in ray.nodes()}
        names = {node["NodeID"]: name for name, node in nodes.items()}
        said = {
            "nodes": {name: node["NodeID"] for name, node in nodes.items()},
            "addresses": {name: node["NodeManagerAddress"] for name, node in nodes.items()},
            "landed": {e: landed(e, names) for e in ("mlx", "torch:cuda", "faiss:cuda")},
            "trained_on": trained_on(names),
            "newton": solve("newton"),
            "newton,torch:cuda": solve("newton,torch:cuda"),
        }
        try:
            solve("torch:cuda")
        except InputError as error:
            said["torch:cuda"] = str(error)
    print(json.dumps(said))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
