"""The token stays where it is kept: not in what is packed for other machines, nor in a log."""

import zipfile
from pathlib import Path

import psutil
import pytest
import ray
from command import tenfold
from ray._private.runtime_env.packaging import create_package

from cluster.connect import _package_folders
from cluster.token import token_path

ROOT = Path(__file__).resolve().parents[2]
IGNORED = (
    "auth_token",
    ".ray/auth_token",
    "deep/auth_token",
    ".aws/credentials",
    "head.pem",
    ".env",
)


def packed(folder, target):
    create_package(str(folder), target, include_gitignore=True)
    with zipfile.ZipFile(target) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_secrets_in_the_clone_stay_out_of_the_working_dir(tmp_path):
    clone = tmp_path / "clone"
    for name in (*IGNORED, "cluster/token.py"):
        path = clone / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("secret")
    for name in (".rayignore", ".gitignore"):
        (clone / name).write_text((ROOT / name).read_text())
    names = {n for n in packed(clone, tmp_path / "working_dir.zip") if not n.endswith("/")}
    assert names == {"cluster/token.py", ".rayignore", ".gitignore"}


@pytest.mark.parametrize("folder", _package_folders(), ids=lambda folder: Path(folder).name)
def test_packages_that_a_driver_brings_hold_code_alone(cluster, tmp_path, folder):
    token = token_path().read_bytes()
    files = packed(Path(folder), tmp_path / "py_module.zip")
    assert len(files) > 5
    assert not [name for name, content in files.items() if token in content]
    assert not [name for name in files if name.endswith((".pem", "auth_token", ".env"))]


def test_token_is_on_no_command_line(cluster):
    token = token_path().read_text()
    family = psutil.Process().children(recursive=True)
    lines = [" ".join(p.cmdline()) for p in family if p.status() != psutil.STATUS_ZOMBIE]
    assert any("raylet" in line for line in lines)
    assert not [line for line in lines if token in line]


def test_token_is_in_no_file_of_a_job_nor_in_the_logs_of_its_ray(cluster, tmp_path):
    done = tenfold("fpcb", "generate", "--panels", 6, "--scenario", "crack", "--out", tmp_path)
    assert done.code == 0, done.err
    token = token_path().read_bytes()
    session = Path(ray._private.worker.global_worker.node.get_session_dir_path())
    files = [path for path in (*session.rglob("*"), *tmp_path.rglob("*")) if path.is_file()]
    assert {"raylet.out", "data.json"} <= {path.name for path in files}
    assert not [path for path in files if token in path.read_bytes()]
    assert token.decode() not in done.out + done.err
