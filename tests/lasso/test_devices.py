"""Engines by name on their devices: what is missing is said, what is there solves in an actor."""

import subprocess
import sys

import numpy as np
import pytest
import ray
from designs import counts_like

from actors.lasso.actor import worker_factory
from actors.lasso.certificate import certify
from actors.lasso.engines import DEVICE_ENGINES, make_engine
from actors.lasso.problem import LassoProblem
from actors.lasso.unit import TRAIN, coefficients
from cluster.errors import InputError


@pytest.mark.parametrize("name", DEVICE_ENGINES)
def test_a_missing_library_names_the_extra_to_install(name, monkeypatch):
    for module in ("torch", "mlx", "mlx.core"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=rf"pip install 'tenfold\[{name.partition(':')[0]}\]'"):
        make_engine(name)


def test_an_absent_device_is_named_with_those_that_are_there():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    absent = [name for name, yes in there.items() if not yes]
    for name in absent:
        with pytest.raises(InputError, match=f"torch:{name}.*torch:cpu"):
            make_engine(f"torch:{name}")


def test_torch_alone_takes_the_first_device_there_is():
    pytest.importorskip("torch", reason="PyTorch is not installed")
    from actors.lasso.torch_engine import available_devices

    assert make_engine("torch").name == f"torch:{available_devices()[0]}"


def test_cpu_engines_do_not_load_the_libraries_of_devices():
    code = (
        "import sys\n"
        "from actors.lasso.engines import make_engine\n"
        "import actors.lasso.calibration\n"
        "make_engine('newton')\n"
        "assert not {'torch', 'mlx', 'mlx.core'} & set(sys.modules), sorted(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["torch:cpu", "mlx"])
def test_a_worker_solves_on_its_device(cluster, name):
    pytest.importorskip(name.partition(":")[0], reason="not installed")
    X = counts_like(1, 60, 40)
    Y = np.column_stack([X[:, 3].toarray().ravel() + np.random.default_rng(1).random(60)])
    roles = np.full((1, 60), TRAIN, dtype=np.int8)
    problem = LassoProblem(X, Y[:, 0])
    alphas = problem.alpha_max() / np.array([2.0, 5.0])
    worker = worker_factory(X, Y, roles, engine=name)()
    payload = {"target": 0, "fold": 0, "alphas": alphas, "tol": 1e-8}
    result = ray.get(worker.solve.remote(payload, None), timeout=120)
    ray.kill(worker)
    coefs = coefficients(result, 40)
    for i, alpha in enumerate(alphas):
        proof = certify(problem, coefs[:, [i]], result["intercepts"][i], alpha)
        assert proof.relative_gap <= 1e-8 * (1 + 1e-6)
