"""The choice of an engine from trials, what is remembered, and what auto does on a cluster."""

import json

import numpy as np
import pytest
from designs import counts_like, make_problem

from actors.lasso.calibration import (
    EngineChoice,
    Trial,
    TrialMemory,
    choose,
    sample_alphas,
    size_class,
)
from actors.lasso.unit import TRAIN, VALIDATION
from cluster.errors import InputError
from cluster.resources import mlx_has_gpu
from pipelines.news.fitting.engine import resolve_engine
from pipelines.news.fitting.path import PathConfig


def test_choice_is_the_engine_whose_workers_together_are_fastest():
    slow_but_many = Trial("newton", workers=16, seconds=2.0)
    assert choose([slow_but_many, Trial("torch:cuda", 1, 0.2)], "newton").engine == "newton"
    choice = choose([slow_but_many, Trial("torch:cuda", 2, 0.2)], "newton")
    assert (choice.engine, choice.workers) == ("torch:cuda", 2)


def test_choice_is_the_default_when_nothing_was_measured():
    trials = [Trial("newton", 2), Trial("mlx", note="no machine offers mlx")]
    assert choose(trials, "newton").engine == "newton"


def test_choice_says_what_was_measured_and_why_others_were_not():
    trials = (Trial("newton", 2, 0.5), Trial("mlx", 1, 0.25), Trial("torch:cuda", note="no cuda"))
    text = choose(trials, "newton").describe()
    assert text == (
        "engine newton; measured on a sample of this problem: newton 0.5 s x 2 workers, "
        "mlx 0.25 s x 1 worker; not measured: torch:cuda (no cuda)"
    )
    again = EngineChoice("newton", 2, trials, remembered=True).describe()
    assert "remembered: newton 0.5 s" in again
    json.dumps(choose(trials, "newton").as_json())


@pytest.mark.parametrize("size", [1, 2, 5, 50])
def test_sample_is_a_falling_part_of_the_path_from_its_top(size):
    alphas = np.geomspace(1.0, 0.01, size)
    sample = sample_alphas(alphas)
    assert sample[0] == alphas[0]
    assert (np.diff(sample) < 0).all()
    assert set(sample) <= set(alphas)
    assert sample.size <= 8


def test_size_class_tells_problems_apart_that_differ_by_much():
    X = make_problem(1, n=64, p=32).X
    assert size_class(X, 100) == size_class(X, 110)
    assert size_class(X, 100) != size_class(X, 1000)
    assert size_class(X[:, :8], 100) != size_class(X, 100)


def test_memory_returns_what_was_remembered_under_the_same_key(tmp_path):
    memory = TrialMemory(tmp_path / "deep" / "engines.json")
    assert memory.recall("a") is None
    first, second = (Trial("newton", 2, 0.5),), (Trial("mlx", 1, 0.1), Trial("newton", 2, 9.0))
    memory.remember("a", first)
    memory.remember("b", second)
    again = TrialMemory(tmp_path / "deep" / "engines.json")
    assert again.recall("a") == first
    assert again.recall("b") == second
    assert again.recall("c") is None


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"a": 3}', '{"a": [{"speed": 1}]}'])
def test_a_damaged_memory_counts_as_empty_and_is_replaced(tmp_path, content):
    file = tmp_path / "engines.json"
    file.write_text(content)
    memory = TrialMemory(file)
    assert memory.recall("a") is None
    memory.remember("a", (Trial("newton", 2, 0.5),))
    assert memory.recall("a") == (Trial("newton", 2, 0.5),)


def test_a_memory_that_cannot_be_written_is_let_be(tmp_path):
    (tmp_path / "file").write_text("")
    memory = TrialMemory(tmp_path / "file" / "engines.json")
    memory.remember("a", (Trial("newton", 2, 0.5),))
    assert memory.recall("a") is None


def shared(engine, workers, seconds):
    return Trial(engine, workers, seconds, shared_seconds=seconds)


def test_engines_share_the_grid_when_they_are_faster_together():
    trials = [shared("newton", 16, 0.8), shared("mlx", 2, 0.2), shared("torch:cuda", 1, 0.1)]
    choice = choose(trials, "newton", samples=1000)
    assert choice.engine == "newton,mlx,torch:cuda"
    assert choice.workers == 19
    assert choose(trials, "newton").engine == "newton"


def test_an_engine_does_not_share_when_waiting_for_it_costs_more_than_it_saves():
    trials = [shared("newton", 10, 1.0), shared("mlx", 1, 30.0)]
    assert choose(trials, "newton", samples=1000).engine == "newton"
    assert choose(trials, "newton", samples=100_000).engine == "newton,mlx"


def test_one_engine_is_chosen_when_it_is_faster_alone_than_all_together():
    cuda = Trial("torch:cuda", 1, 0.01, shared_seconds=0.5)
    trials = [shared("newton", 16, 1.0), cuda]
    assert choose(trials, "newton", samples=1000).engine == "torch:cuda"
    assert "torch:cuda 0.01 s (0.5 s shared) x 1 worker" in choose(trials, "newton").describe()


def test_two_engines_never_share_one_device():
    trials = [shared("newton", 2, 1.0), shared("torch:mps", 1, 0.2), shared("mlx", 1, 0.1)]
    assert choose(trials, "newton", samples=1000).engine == "newton,mlx"


def make_grid():
    X = counts_like(3, 80, 60)
    rng = np.random.default_rng(3)
    Y = np.column_stack([X[:, 0].toarray().ravel() + 0.3 * rng.standard_normal(80)])
    roles = np.full((3, 80), TRAIN, dtype=np.int8)
    roles[0, ::2], roles[1, 1::2] = VALIDATION, VALIDATION
    return X, Y, roles, [np.geomspace(0.3, 0.01, 12)]


def resolve(engine, cluster, workers=None, **options):
    X, Y, roles, grids = make_grid()
    config = PathConfig(engine=engine, **options)
    return resolve_engine(config, X, Y, roles, lambda: grids, cluster, workers, "code")


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "tenfold" / "engines.json"


@pytest.mark.skipif(mlx_has_gpu(), reason="this machine has a GPU that MLX uses")
def test_auto_is_newton_without_a_trial_when_no_machine_has_a_device(cluster, empty_cache):
    if any(node.resources.get("cuda") or node.resources.get("mps") for node in cluster.nodes):
        pytest.skip("this machine has a device for PyTorch")
    choice = resolve("auto", cluster)
    assert choice.engine == "newton"
    assert all(trial.seconds is None for trial in choice.trials)
    assert "torch:cuda (no machine offers cuda)" in choice.describe()
    assert not empty_cache.exists()


def test_auto_measures_a_device_once_and_then_remembers(cluster, empty_cache, monkeypatch):
    if not any(node.resources.get("mlx") for node in cluster.nodes):
        pytest.skip("MLX is not installed")
    monkeypatch.setattr("pipelines.news.fitting.engine.mlx_has_gpu", lambda: True)
    choice = resolve("auto", cluster)
    measured = {trial.engine: trial.seconds for trial in choice.trials if trial.seconds}
    assert {"newton", "mlx"} <= set(measured)
    rates = {trial.engine: trial.rate for trial in choice.trials}
    assert choice.engine == max(rates, key=rates.get)
    again = resolve("auto", cluster)
    assert again.remembered
    assert again.trials == choice.trials
    assert len(json.loads(empty_cache.read_text())) == 1


def test_torch_alone_is_the_best_device_that_is_there(cluster):
    if any(node.resources.get("cuda") or node.resources.get("mps") for node in cluster.nodes):
        pytest.skip("this machine has a device for PyTorch")
    assert resolve("torch", cluster).engine == "torch:cpu"
    with pytest.raises(InputError, match="--engine torch:cuda"):
        resolve("torch:cuda", cluster)


def test_workers_are_no_more_than_the_devices(cluster):
    assert resolve("newton", cluster).workers == cluster.cores
    assert resolve("newton", cluster, workers=1).workers == 1
    if any(node.resources.get("mlx") for node in cluster.nodes):
        assert resolve("mlx", cluster, workers=5).workers == 1


def test_auto_is_newton_when_only_newton_can_stop_early(cluster):
    assert resolve("auto", cluster, early_stop=0.1).engine == "newton"


def test_every_engine_of_a_list_needs_a_machine(cluster):
    if not any(node.resources.get("mlx") for node in cluster.nodes):
        pytest.skip("MLX is not installed")
    choice = resolve("newton, mlx", cluster)
    assert choice.engine == "newton,mlx"
    assert choice.workers == cluster.cores + 1
    if not any(node.resources.get("cuda") for node in cluster.nodes):
        with pytest.raises(InputError, match="--engine newton,torch:cuda: resources"):
            resolve("newton,torch:cuda", cluster)


@pytest.mark.parametrize(
    ("engine", "complaint"),
    [
        ("newton,abacus", "unknown"),
        ("newton,auto", "unknown"),
        ("newton,", "unknown"),
        ("newton,celer", "two engines for one device"),
        ("newton,newton", "two engines for one device"),
        ("mlx,torch:mps", "two engines for one device"),
        ("newton,torch", "which device is torch"),
    ],
)
def test_lists_of_engines_that_cannot_share_are_refused(engine, complaint):
    with pytest.raises(InputError, match=f"--engine: {complaint}"):
        PathConfig(engine=engine)
