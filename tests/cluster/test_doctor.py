import sys
import types

import pytest

from cluster import doctor
from cluster.doctor import Check, check_cluster, check_disk, check_machine, check_token
from cluster.token import make_token


@pytest.fixture
def rows(tmp_path):
    return {check.name: check for check in check_machine(tmp_path)}


def test_every_promise_has_its_line(rows):
    assert {"python", "ray", "celer", "scikit-learn", "cores", "memory", "free disk"} <= set(rows)
    assert {"cuda", "mps", "mlx", "faiss", "token authentication"} <= set(rows)
    assert rows["celer"].status == rows["python"].status == "ok"


def test_what_is_not_ok_has_a_remedy(rows):
    assert all(check.remedy for check in rows.values() if check.status != "ok")


def test_missing_optional_packages_name_their_extra(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "_installed", lambda module: False)
    rows = {check.name: check for check in check_machine(tmp_path)}
    assert {rows[name].status for name in ("cuda", "mps", "mlx", "faiss")} == {"missing"}
    assert "tenfold[torch]" in rows["cuda"].remedy
    assert "tenfold[mlx]" in rows["mlx"].remedy


def test_broken_package_costs_its_own_line_only(monkeypatch, tmp_path):
    broken = types.ModuleType("torch")

    def explode(name):
        raise RuntimeError("libcudart.so.13: cannot open\nmore")

    broken.__getattr__ = explode
    monkeypatch.setitem(sys.modules, "torch", broken)
    monkeypatch.setattr(doctor, "_installed", lambda module: module == "torch")
    rows = {check.name: check for check in check_machine(tmp_path)}
    assert rows["cuda"] == Check(
        "cuda", "wrong", "RuntimeError: libcudart.so.13: cannot open", rows["cuda"].remedy
    )
    assert rows["cores"].status == "ok"


def test_disk_of_a_folder_yet_to_be_made_is_its_parents(tmp_path):
    assert str(tmp_path) in check_disk(tmp_path / "not" / "yet").detail


def test_token_that_others_can_read_is_wrong(monkeypatch, tmp_path):
    path = tmp_path / "auth_token"
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(path))
    make_token(path)
    assert check_token().status == "ok"
    path.chmod(0o644)
    assert check_token().status == "wrong"
    assert check_token().remedy == f"chmod 600 {path}"
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    assert check_token().status == "wrong"


def test_versions_of_nodes_are_compared(cluster, monkeypatch):
    rows = {check.name: check for check in check_cluster(cluster)}
    assert rows["versions on all nodes"].status == "ok"
    assert rows["dashboard"].detail == cluster.dashboard_url
    monkeypatch.setattr(doctor, "versions", lambda: {"python": "2.7.18"})
    differing = doctor.check_versions(cluster)
    assert differing.status == "wrong"
    assert "(here 2.7.18)" in differing.detail
