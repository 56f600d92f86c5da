"""A mixed cluster: raylets that stand for an M1 and a CUDA box, with false GPUs and false CUDA.

The "m1" advertises a GPU that CUDA cannot use, as Ray makes some Macs do. The "box" declares CUDA
that is not there: what is placed on it is right, and whoever comes to solve there must say so.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
from driver import Driver
from raylets import Networks, Raylets

from pipelines.news.synthetic import SyntheticConfig, write_market

ROOT = Path(__file__).parents[1]
OPTIONS = {"targets": "excess_return,log_range", "folds": 3, "alphas": 48, "stretch": 4}
OPTIONS |= {"alpha_ratio": 12.0, "shard_rows": 2000}
UNITS = 2 * (3 + 1) * (48 // 4)
SOLVER = "ray::LassoWorker"
COEFFICIENT_LIMIT = 1e-4  # of `tenfold news audit`

mlx = pytest.importorskip("mlx.core", reason="MLX is not installed")
torch = pytest.importorskip("torch", reason="PyTorch is not installed")
pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(torch.cuda.is_available(), reason="the box is to lie about CUDA"),
]


@pytest.fixture(scope="module")
def raylets():
    with Raylets(Networks() if Networks.work() else None) as started:
        started.head()
        nodes = [
            started.join("m1", 0, {"mlx": 1}, num_gpus=1, wait=False),
            started.join("box", 1, {"cuda": 1}, num_gpus=1, wait=False),
        ]
        for node in nodes:
            node.wait_until_started()
        yield started


@pytest.fixture(scope="module")
def market(tmp_path_factory):
    folder = tmp_path_factory.mktemp("market")
    write_market(SyntheticConfig(documents=4_000, tickers=20, sessions=80, words=4), folder)
    return folder


@pytest.fixture(scope="module")
def said(raylets, market):
    """What a driver saw of placement, and which units each engine solved in its fits."""
    command = [*raylets.inside(), sys.executable, Path(__file__).with_name("mixed_driver.py")]
    done = subprocess.run(
        [*command, market, json.dumps(OPTIONS)],
        env=raylets.environment(),
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@dataclass(frozen=True)
class Disturbed:
    """A run by newton and mlx in the course of which a node joined, worked and was killed."""

    metrics: dict
    entries: list
    known: dict
    log: str


@pytest.fixture(scope="module")
def disturbed(raylets, market, said):
    """Let a node join while the driver is held; then it alone works, until it is killed.

    That both engines had a unit, and the node too, is made sure of by holding the others' workers:
    no time is waited for.
    """
    out = market / "run"
    shutil.rmtree(out / "work" / "path")
    command = ["news", "fit", "--engine", "newton,mlx", "--out", out]
    for name in ("news", "prices"):
        command += [f"--{name}", market / f"{name}.parquet"]
    for name, value in OPTIONS.items():
        command += [f"--{name.replace('_', '-')}", value]
    driver = Driver(out, raylets.environment(), *command, inside=raylets.inside())
    manifest = out / "work" / "path" / "_manifest.jsonl"

    def entries():
        lines = manifest.read_text().splitlines() if manifest.exists() else []
        return [json.loads(line) for line in lines]

    def solved(**by):
        return [e for e in entries() if by.items() <= e["summary"].items()]

    m1, box = raylets.nodes["m1"], raylets.nodes["box"]
    known = said["nodes"]
    driver.wait_for(lambda: solved(kind="newton"), "a unit of newton")
    box.stop_processes(SOLVER)
    driver.wait_for(lambda: solved(kind="mlx"), "a unit of mlx")
    os.killpg(driver.process.pid, signal.SIGSTOP)
    late = raylets.join("late", 1)
    m1.stop_processes(SOLVER)
    os.killpg(driver.process.pid, signal.SIGCONT)
    try:
        driver.wait_for(
            lambda: {e["summary"]["node"] for e in entries()} - {*known.values()},
            "a unit of the node that joined",
        )
        late.kill()
    finally:
        m1.resume()
        box.resume()
    log = driver.finish()
    metrics = json.loads((out / "metrics.json").read_text())
    assert_same_dictionary(out / "dictionary.parquet", market / "newton.parquet")
    return Disturbed(metrics, entries(), known, log)


def assert_same_dictionary(left, right):
    one, other = (
        pd.read_parquet(file).set_index(["target", "ngram"])["coef"] for file in (left, right)
    )
    assert len(one) > 5
    assert set(one.index) == set(other.index)
    largest = other.abs().groupby("target").max()
    share = (one - other.reindex(one.index)).abs() / one.index.get_level_values(0).map(largest)
    assert share.max() <= COEFFICIENT_LIMIT


def test_cuda_lands_on_the_box_alone_though_the_mac_advertises_a_gpu(said):
    assert said["landed"]["torch:cuda"] == [["box"], "0"]
    assert said["landed"]["faiss:cuda"] == [["box"], "0"]
    assert said["trained_on"] == "box"


def test_mlx_lands_on_the_mac_alone(said):
    assert said["landed"]["mlx"][0] == ["m1"]


def test_every_node_is_known_by_the_address_it_has_towards_the_head(raylets, said):
    if not raylets.networks:
        pytest.skip("no network namespaces here: they need root and iproute2")
    head = raylets.nodes["head"].address
    for name in ("m1", "box"):
        asked = [*raylets.inside(name), sys.executable, "-m", "cluster.resources", head]
        own = subprocess.run(asked, capture_output=True, text=True, check=True, cwd=ROOT)
        assert own.stdout.strip() == said["addresses"][name] == raylets.nodes[name].address


def test_node_that_lies_about_cuda_loses_its_units_to_other_engines(said, market):
    assert said["newton"] == said["newton,torch:cuda"] == {"newton": UNITS}
    assert_same_dictionary(market / "newton,torch:cuda.parquet", market / "newton.parquet")


def test_lie_about_cuda_is_an_input_error_when_no_other_engine_is_there(said):
    assert "engine torch:cuda: PyTorch" in said["torch:cuda"]
    assert "does not reach this device" in said["torch:cuda"]


def test_mlx_and_newton_share_a_run_and_find_the_dictionary_of_newton(disturbed):
    assert disturbed.metrics["engine"] == "newton,mlx"
    assert set(disturbed.metrics["units"]) == {"newton", "mlx"}
    assert sum(disturbed.metrics["units"].values()) == UNITS
    places = {entry["summary"]["node"] for entry in disturbed.entries
              if entry["summary"]["kind"] == "mlx"}  # fmt: skip
    assert places == {disturbed.known["m1"]}


def test_node_that_joins_takes_units_and_gives_back_those_it_dies_with(disturbed):
    late = [e for e in disturbed.entries
            if e["summary"]["node"] not in disturbed.known.values()]  # fmt: skip
    assert late
    assert len({entry["summary"]["node"] for entry in late}) == 1
    assert " again after " in disturbed.log
