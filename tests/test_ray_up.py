"""ray-config.yaml as shipped, by ``ray up`` and ``ray down``, on machines made of namespaces.

Addresses, user and the installing commands alone are replaced: the environment of this test
stands in for what pip would install. Four minutes, most of them Ray's own patience, so only when
asked for: ``TENFOLD_RAY_UP=1 pytest tests/test_ray_up.py``, as root, with sshd and rsync installed.
"""

import json
import os
import shutil
import sys
import time
from pathlib import Path

import machines
import pytest
import yaml

from cluster.resources import node_resources

ROOT = Path(__file__).parents[1]
LACKING = machines.missing() if os.environ.get("TENFOLD_RAY_UP") else "TENFOLD_RAY_UP is not set"
pytestmark = pytest.mark.skipif(bool(LACKING), reason=LACKING)

NAMES = ("desk", "head", "cuda-box", "cpu-box")
# A stand-in for a machine with CUDA devices: all that Ray learns of one.
CUDA_BOX = "#!/bin/sh\necho '{\"cuda\": 2}'\n"
# Asks the dashboard, from the head, until there are as many nodes as named.
WAIT_FOR_NODES = """
import json, pathlib, sys, time, urllib.request
token = pathlib.Path("~/.ray/auth_token").expanduser().read_text()
asked = urllib.request.Request("http://127.0.0.1:8265/api/v0/nodes?detail=1")
asked.add_header("Authorization", f"Bearer {token}")
for _ in range(300):
    with urllib.request.urlopen(asked, timeout=30) as reply:
        nodes = json.load(reply)["data"]["result"]["result"]
    alive = [node for node in nodes if node["state"] == "ALIVE"]
    if len(alive) == int(sys.argv[1]):
        break
    time.sleep(0.5)
print(json.dumps({node["node_ip"]: node["resources_total"] for node in alive}))
"""
CONNECT = "exec 3<>/dev/tcp/{address}/{port}"


@pytest.fixture(scope="module")
def lan(tmp_path_factory):
    """Yield the machine that a user sits at, the head, a CUDA box and one more machine."""
    folder = tmp_path_factory.mktemp("lan")
    with machines.start_machines(folder, NAMES, visible=[ROOT]) as made:
        yield dict(zip(NAMES, made, strict=True))


@pytest.fixture(scope="module")
def nodes(lan):
    """Bring the cluster up from the desk; return the resources of the nodes, by address."""
    desk, head = lan["desk"], lan["head"]
    shipped = yaml.safe_load((ROOT / "ray-config.yaml").read_text())
    workers = [lan["cuda-box"].address, lan["cpu-box"].address]
    provider = {"type": "local", "head_ip": head.address, "worker_ips": workers}
    config = {
        **shipped,
        "provider": provider,
        "auth": {**shipped["auth"], "ssh_user": machines.USER},
        "min_workers": len(workers),
        "max_workers": len(workers),
        "setup_commands": [
            "mkdir -p ~/tenfold-venv/bin",
            f"ln -s {sys.prefix}/lib {sys.prefix}/pyvenv.cfg ~/tenfold-venv/",
            f"ln -s {sys.prefix}/bin/* ~/tenfold-venv/bin/ || true",  # what is there stays
            shipped["setup_commands"][-1],
        ],
    }
    declare(lan["cuda-box"], CUDA_BOX)
    clone(desk.home / "tenfold")
    (desk.home / "tenfold" / "ray-config.yaml").write_text(yaml.safe_dump(config))
    made = desk.run("umask 077; ray get-auth-token --generate")
    assert made.returncode == 0, made.stderr
    up = desk.run("cd ~/tenfold && ray up --yes ray-config.yaml", timeout_s=200)
    assert up.returncode == 0, up.stdout + up.stderr
    asked = head.run(f"python -c '{WAIT_FOR_NODES}' {1 + len(workers)}", timeout_s=240)
    assert asked.returncode == 0, asked.stderr
    return json.loads(asked.stdout)


def declare(machine, script):
    command = machine.home / "tenfold-venv" / "bin" / "tenfold"
    command.parent.mkdir(parents=True)
    command.write_text(script)
    command.chmod(0o755)


def clone(folder):
    for package in ("actors", "cluster", "pipelines"):
        skip = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / package, folder / package, ignore=skip)
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, folder)


def test_every_machine_joins_with_what_it_offers(lan, nodes):
    assert set(nodes) == {lan[name].address for name in ("head", "cuda-box", "cpu-box")}
    assert nodes[lan["cuda-box"].address]["cuda"] == 2
    for name in ("head", "cpu-box"):
        offered = nodes[lan[name].address]
        assert node_resources().items() <= offered.items()
        assert "cuda" not in offered


def test_dashboard_is_reached_through_a_tunnel_alone_and_asks_for_the_token(lan, nodes):
    desk, head = lan["desk"], lan["head"]
    assert desk.run(CONNECT.format(address=head.address, port=8265)).returncode != 0
    tunnel = f"ssh -o StrictHostKeyChecking=no -fNL 8265:localhost:8265 {head.address}"
    assert desk.run(tunnel).returncode == 0
    address = "--address http://localhost:8265"
    refused = desk.run(f"HOME=/nowhere ray job list {address}", RAY_AUTH_MODE="token")
    assert refused.returncode != 0
    assert "token" in refused.stderr
    submit = f"cd ~/tenfold && ray job submit {address} --working-dir . --"
    done = desk.run(f"{submit} python -m pipelines doctor --json", RAY_AUTH_MODE="token")
    (line,) = (line for line in done.stdout.splitlines() if line.startswith('{"checks"'))
    checks = {check["name"]: check for check in json.loads(line)["checks"]}
    assert checks["versions on all nodes"]["detail"] == "equal on 3 node(s)"
    assert "cuda 2" in checks["nodes"]["detail"]


def test_token_reaches_every_machine_and_nothing_but_its_file(lan, nodes):
    token = (lan["desk"].home / ".ray" / "auth_token").read_text()
    for machine in lan.values():
        file = machine.home / ".ray" / "auth_token"
        assert file.read_text() == token
        assert file.stat().st_mode & 0o777 == 0o600
        written = [path for path in machine.home.parent.rglob("*") if path.is_file()]
        assert len(written) > 10
        others = (path for path in written if path != file)
        assert not [path for path in others if token.encode() in path.read_bytes()]


def test_ray_down_leaves_no_process(lan, nodes):
    desk = lan["desk"]
    down = desk.run("cd ~/tenfold && ray down --yes ray-config.yaml")
    assert down.returncode == 0, down.stdout + down.stderr
    # Workers believe for a minute that the head may come back, their agents for one more.
    deadline, left = time.monotonic() + 240, ["?"]
    while left and time.monotonic() < deadline:
        time.sleep(1)
        left = [line for name in NAMES[1:] for line in lan[name].processes() if "sshd" not in line]
    assert not left
