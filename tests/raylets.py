"""Ray clusters of several raylets on one machine; imported by tests, never a test itself.

Each node is a ``ray start --block`` in a session of its own, with the devices it is told to
declare: an "M1" is a raylet with the resource ``mlx``. Each has a loopback address of its own, or,
with `Networks`, one in a network namespace of its own, where nobody else can reach it.
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from cluster.token import make_token, token_path

ROOT = Path(__file__).resolve().parent.parent
RAY = Path(sys.executable).with_name("ray")
_STARTED = "Ray runtime started."
_TIMEOUT_S = 150.0


@dataclass(eq=False)
class Node:
    """One raylet with all processes that belong to it."""

    name: str
    address: str
    process: subprocess.Popen
    log: Path
    agent_port: int

    def wait_until_started(self):
        """Wait until the head knows this node; return it."""
        deadline = time.monotonic() + _TIMEOUT_S
        while not self.has_started():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.1)
        return self

    def has_started(self):
        """Tell whether the head knows this node, or knew it."""
        return _STARTED in self.log.read_text()

    def processes(self, title=""):
        """Return the living processes of this node whose command line begins with ``title``."""
        return [found for found in _session(self.process.pid) if _title(found).startswith(title)]

    @property
    def raylet(self):
        """The process of the raylet itself."""
        (found,) = [p for p in self.processes() if Path(_title(p)).name == "raylet"]
        return found

    def kill(self):
        """SIGKILL the raylet; what it leaves behind ends by itself, or is ended here."""
        self.raylet.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=10)
        self.end()

    def leave(self):
        """Let the raylet sign off and end, as a machine that is shut down in order."""
        raylet = self.raylet
        raylet.terminate()
        psutil.wait_procs([raylet], timeout=30)
        self.end()

    def stop_processes(self, title=""):
        """SIGSTOP all of the node, a machine that stalls, or its processes with a ``title``."""
        self._signal(title, signal.SIGSTOP)

    def resume(self):
        """SIGCONT what `stop_processes` stopped."""
        self._signal("", signal.SIGCONT)

    def _signal(self, title, number):
        for process in self.processes(title):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    def end(self):
        """Kill whatever is left of the node."""
        while left := self.processes():
            for process in left:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            self.process.poll()  # reaps what would stay a zombie
            psutil.wait_procs(left, timeout=5)
        self.process.wait(timeout=10)


@dataclass(eq=False)
class Raylets:
    """A token-protected head and the nodes that join it; a context manager that leaves nothing.

    Parameters
    ----------
    networks : Networks, optional
        Default: loopback addresses; Ray then listens on all interfaces, and asks for the token.
    alone : bool
        The head is the only node, and listens on loopback alone.
    """

    networks: "Networks | None" = None
    alone: bool = False
    nodes: dict[str, Node] = field(default_factory=dict)
    address: str = ""
    dashboard_url: str | None = None

    def __post_init__(self):
        make_token(token_path())
        # Short: below it are unix sockets, whose paths may have 107 letters.
        self.folder = Path(tempfile.mkdtemp(prefix="tf-", dir="/tmp"))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def head(self, num_cpus=0, resources=None, *, dashboard=False, **offers):
        """Start the head and wait for it; ``offers`` as in `join`."""
        ip = self._address("head")
        port, site = free_port(), free_port()
        self.address = f"{ip}:{port}"
        arguments = ["--head", f"--port={port}", f"--include-dashboard={dashboard}"]
        # Left to itself, it takes a port that every head on this machine wants.
        arguments += [f"--ray-client-server-port={free_port()}"]
        if dashboard:
            self.dashboard_url = f"http://127.0.0.1:{site}"
            arguments += ["--dashboard-host=127.0.0.1", f"--dashboard-port={site}"]
        else:
            arguments += ["--no-monitor", "--include-log-monitor=False"]  # nobody reads them
        node = self._start("head", ip, arguments, num_cpus, resources, **offers)
        node.wait_until_started()
        if dashboard:
            _wait_for_port((ip, node.agent_port), node)
        return node

    def join(self, name, num_cpus, resources=None, *, wait=True, **offers):
        """Start a node; with ``wait=False``, return before the head knows it.

        Parameters
        ----------
        resources : dict, optional
            Such as ``{"mlx": 1}``; ``num_gpus``, ``labels`` and ``object_store_mib`` may follow.
        """
        ip = self._address(name)
        arguments = [f"--address={self.address}", "--include-log-monitor=False"]
        node = self._start(name, ip, arguments, num_cpus, resources, **offers)
        return node.wait_until_started() if wait else node

    def _start(
        self,
        name,
        ip,
        arguments,
        num_cpus,
        resources,
        num_gpus=0,
        labels=None,
        object_store_mib=100,
    ):
        folder = self.folder / name
        folder.mkdir()
        log = folder / "start.log"
        command = [RAY, "start", "--block", *arguments]
        command += [f"--node-ip-address={ip}", f"--node-name={name}", f"--temp-dir={folder}"]
        command += [f"--num-cpus={num_cpus}", f"--num-gpus={num_gpus}"]
        command += [f"--resources={json.dumps(resources or {})}"]
        command += [f"--object-store-memory={object_store_mib << 20}"]
        # Other raylets of this machine would try the same ports.
        agent = free_port()
        command += ["--min-worker-port=0", "--max-worker-port=0"]
        command += [f"--dashboard-agent-listen-port={agent}"]
        if labels:
            command += ["--labels", ",".join(f"{key}={value}" for key, value in labels.items())]
        with log.open("w") as sink:
            process = subprocess.Popen(
                [*self.inside(name), *command],
                env=self._node_environment(),
                stdout=sink,
                stderr=sink,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        self.nodes[name] = Node(name, ip, process, log, agent)
        return self.nodes[name]

    def _address(self, name):
        if self.networks:
            return self.networks.add(name)
        # Where others may join, Ray replaces 127.0.0.1 by the machine's outward address.
        return "127.0.0.1" if self.alone else f"127.0.0.{len(self.nodes) + 2}"

    def inside(self, name="head"):
        """Return what a command must be prefixed with to run on that node's network."""
        return self.networks.prefix(name) if self.networks else []

    def environment(self):
        """Return the variables with which a process on the head's machine is a driver."""
        return {
            **self._node_environment(),
            "RAY_ADDRESS": self.address,
            "PYTHONPATH": str(ROOT),
        }

    def _node_environment(self):
        return {
            **os.environ,
            "RAY_AUTH_MODE": "token",
            "RAY_USAGE_STATS_ENABLED": "0",
            # Where many tests share few cores, starting takes longer than Ray waits by itself.
            "RAY_agent_register_timeout_ms": "120000",
            "RAY_raylet_start_wait_time_s": "120",
            **({"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"} if self.alone else {}),
        }

    def close(self):
        """End every node, the head last, and remove their folders."""
        for node in reversed(self.nodes.values()):
            node.end()
        if self.networks:
            self.networks.close()
        shutil.rmtree(self.folder, ignore_errors=True)


class Networks:
    """A network namespace for each node, joined by a bridge in the head's.

    Nothing of it is in the machine's own network: a driver runs in the head's namespace.
    """

    def __init__(self):
        self._name = f"tf{os.getpid()}"
        self._nodes = []

    @staticmethod
    def work():
        """Tell whether this machine lets us make them."""
        name = f"tf{os.getpid()}-try"
        made = shutil.which("ip") and not _ip("netns", "add", name).returncode
        return bool(made) and not _ip("netns", "delete", name).returncode

    def add(self, node):
        """Make the namespace of a node, the head's first; return its address."""
        self._nodes.append(node)
        space, number = self._space(node), len(self._nodes)
        address = f"10.77.0.{number}"
        _must("netns", "add", space)
        _must("-n", space, "link", "set", "lo", "up")
        if number == 1:
            _must("-n", space, "link", "add", "hub", "type", "bridge")
            device = "hub"
        else:
            hub, device = self._space(self._nodes[0]), "wire"
            far = f"n{number}"
            _must("-n", space, "link", "add", "wire", "type", "veth", "peer", "name", far,
                  "netns", hub)  # fmt: skip
            _must("-n", hub, "link", "set", far, "master", "hub", "up")
        _must("-n", space, "address", "add", f"{address}/24", "dev", device)
        _must("-n", space, "link", "set", device, "up")
        return address

    def prefix(self, node):
        """Return the words that make a command run in that node's namespace."""
        return ["ip", "netns", "exec", self._space(node)]

    def close(self):
        """Remove all namespaces, and with them their devices."""
        while self._nodes:
            _ip("netns", "delete", self._space(self._nodes.pop()))

    def _space(self, node):
        return f"{self._name}-{node}"


def free_port():
    """Return a port of loopback that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def _wait_for_port(address, node):
    deadline = time.monotonic() + _TIMEOUT_S
    while True:
        assert node.process.poll() is None, node.log.read_text()
        with socket.socket() as probe:
            if probe.connect_ex(address) == 0:
                return
        assert time.monotonic() < deadline, node.log.read_text()
        time.sleep(0.2)


def _session(leader):
    """Return the living processes of a session; those that lost their parent are among them."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if os.getsid(process.pid) == leader and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def _title(process):
    with contextlib.suppress(psutil.Error):
        return (process.cmdline() or [""])[0]
    return ""


def _ip(*arguments):
    return subprocess.run(["ip", *arguments], capture_output=True, text=True)


def _must(*arguments):
    done = _ip(*arguments)
    assert done.returncode == 0, done.stderr
