"""The house rule, held: pipelines -> actors -> cluster, and pure modules do without Ray."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("cluster", "actors", "pipelines")
ALLOWED = {
    "cluster": {"cluster"},
    "actors": {"actors", "cluster"},
    "pipelines": {"pipelines", "actors", "cluster"},
}
# Modules that may import ray, besides actors/*/actor.py and the Ray Train loop.
RAY_MODULES = {
    *(
        f"cluster/{name}.py"
        for name in (
            "connect",
            "nodes",
            "pool",
            "shards",
            "units",
            "progress",
            "doctor",
            "failures",
        )
    ),
    "pipelines/fpcb/train.py",
}
# What Python users fit with: on Ray when asked, so an import inside a function, never at the top.
ON_REQUEST = {
    f"actors/lasso/{name}.py" for name in ("estimators", "estimator_fits", "estimator_multitask")
}
# Libraries of extras: a module that needs one may fail to import where it is not installed.
OPTIONAL = ("torch", "mlx", "mlx.core", "faiss", "safetensors")
MODULES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))


def imported_names(path):
    """Every module named by an import anywhere in the file, also inside functions."""
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = [*package[: len(package) - node.level + 1]] if node.level else []
            yield ".".join([*base, *([node.module] if node.module else [])])
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute | ast.Name)
            and (getattr(node.func, "attr", "") or getattr(node.func, "id", ""))
            in ("import_module", "__import__")
            and node.args
            and isinstance(node.args[0], ast.Constant)
        ):
            yield str(node.args[0].value)


def may_import_ray(path):
    name = path.relative_to(ROOT).as_posix()
    return name in RAY_MODULES or (name.startswith("actors/") and path.name == "actor.py")


def reaches_ray(path, seen=None):
    """Whether importing the file imports ray, directly or through modules of ours."""
    seen = seen if seen is not None else set()
    if path in seen or not path.is_file():
        return False
    seen.add(path)
    if may_import_ray(path):
        return True
    targets = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            base = ROOT.joinpath(*node.module.split("."))
            targets += [base.with_suffix(".py"), *(base / f"{a.name}.py" for a in node.names)]
        elif isinstance(node, ast.Import):
            targets += [
                ROOT.joinpath(*alias.name.split(".")).with_suffix(".py") for alias in node.names
            ]
    return any(reaches_ray(target, seen) for target in targets)


def identify(path):
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", MODULES, ids=identify)
def test_imports_go_one_way(path):
    room = path.relative_to(ROOT).parts[0]
    rooms = {name.split(".")[0] for name in imported_names(path)} & set(ROOMS)
    assert rooms <= ALLOWED[room]


@pytest.mark.parametrize("path", MODULES, ids=identify)
def test_ray_is_imported_only_where_allowed(path):
    uses_ray = any(name.split(".")[0] == "ray" for name in imported_names(path))
    assert not uses_ray or may_import_ray(path)


@pytest.mark.parametrize("path", [p for p in MODULES if p.name == "__init__.py"], ids=identify)
def test_package_files_hold_a_docstring_only(path):
    body = ast.parse(path.read_text()).body
    assert all(isinstance(node, ast.Expr) for node in body)


def test_numerics_are_pure():
    # A recipe reaches Ray through cluster; what computes must not reach it at all.
    impure = [identify(p) for p in MODULES if p.parts[-3] == "actors" and reaches_ray(p)]
    assert all(name.endswith("/actor.py") or name in ON_REQUEST for name in impure)


def test_pure_modules_import_without_ray():
    pure = [
        path
        for path in MODULES
        if identify(path) in ON_REQUEST or not (reaches_ray(path) or path.name == "__main__.py")
    ]
    names = [identify(path)[: -len(".py")].replace("/", ".") for path in pure]
    assert "cluster.storage" in names
    assert "cluster.resources" in names
    code = (
        "import importlib, sys\n"
        "sys.modules['ray'] = None\n"
        f"for name in {names!r}:\n"
        "    try:\n"
        "        importlib.import_module(name)\n"
        "    except ModuleNotFoundError as error:\n"
        f"        if error.name not in {OPTIONAL}:\n"
        "            raise\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
