"""An open Ray: its machines, and what they can do for us."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.core.generated import gcs_pb2
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.errors import ConnectError, InputError
from cluster.resources import DEVICES
from cluster.storage import Store
from cluster.token import token_enabled

_GIB = 1 << 30
_PROBE_TIMEOUT_S = 60.0
_ASK_TIMEOUT_S = 20.0
_ASK_TRIES = 4


@dataclass(frozen=True)
class NodeInfo:
    """One machine of the cluster, as Ray sees it."""

    node_id: str
    host: str
    resources: Mapping[str, float]
    labels: Mapping[str, str]

    @property
    def cores(self) -> int:
        """Number of CPUs that Ray may use."""
        return int(self.resources.get("CPU", 0))

    def describe(self) -> str:
        """Return one phrase such as ``gpu1: 16 cores, 64.0 GiB, cuda 1``."""
        memory_gib = self.resources.get("memory", 0.0) / _GIB
        devices = [f"{name} {self.resources[name]:g}" for name in DEVICES if name in self.resources]
        return ", ".join([f"{self.host}: {self.cores} cores", f"{memory_gib:.1f} GiB", *devices])


@dataclass
class Cluster:
    """An open connection to Ray; made by `cluster.connect.connect`."""

    embedded: bool
    address: str
    dashboard_url: str | None
    borrowed: bool = False  # opened before, and closed later, by who called us
    shared_stores: set[str] = field(default_factory=set)  # found readable from every node

    @property
    def nodes(self) -> list[NodeInfo]:
        """The machines that are alive now, sorted by host name."""
        nodes = [
            NodeInfo(
                node_id.hex(),
                node.node_manager_hostname,
                dict(node.resources_total),
                dict(node.labels),
            )
            for node_id, node in _ask_for_nodes().items()
            if node.state == gcs_pb2.GcsNodeInfo.ALIVE  # type: ignore[attr-defined]
        ]
        return sorted(nodes, key=lambda node: (node.host, node.node_id))

    @property
    def cores(self) -> int:
        """CPUs of all machines together."""
        return sum(node.cores for node in self.nodes)

    def describe(self) -> str:
        """Say which Ray this is, where its dashboard is, and what machines it has."""
        which = "embedded Ray" if self.embedded else f"Ray cluster at {self.address}"
        nodes = "; ".join(node.describe() for node in self.nodes)
        dashboard = self.dashboard_url or "none"
        if self.dashboard_url and token_enabled():
            dashboard += " (asks for the token that `ray get-auth-token` prints)"
        return f"{which}, dashboard {dashboard}\nnodes: {nodes}"

    def require(self, options: Mapping[str, Any], what: str) -> None:
        """Check that some machine can run ``what`` with these Ray options.

        Raises
        ------
        InputError
            When none can; Ray itself would wait for such a machine for ever.
        """
        asked = {"CPU": options.get("num_cpus", 1), "GPU": options.get("num_gpus", 0)}
        asked |= dict(options.get("resources") or {})
        asked |= {"memory": options["memory"]} if options.get("memory") else {}
        nodes = self.nodes
        if any(
            all(node.resources.get(name, 0) >= count for name, count in asked.items() if count)
            for node in nodes
        ):
            return
        wanted = ", ".join(f"{name} {count:g}" for name, count in asked.items() if count)
        raise InputError(
            what,
            "resources of one machine",
            wanted,
            "; ".join(node.describe() for node in nodes),
            "Add such a machine (tenfold node-resources shows what one offers) or ask for less.",
        )

    def check_shared(self, store: Store) -> None:
        """Check that every machine reads what this one writes to ``store``.

        Nothing is done on a single machine, or for a store that has passed before.

        Raises
        ------
        InputError
            When some machine does not see it: a local path on a cluster of several machines.
        """
        nodes = self.nodes
        if len(nodes) < 2 or store.uri in self.shared_stores:
            return
        name, token = f".probe-{secrets.token_hex(4)}", secrets.token_bytes(16)
        store.write_bytes(name, token)
        try:
            probes = {
                _reads.options(
                    scheduling_strategy=NodeAffinitySchedulingStrategy(node.node_id, soft=False)
                ).remote(store, name, token): node.host
                for node in nodes
            }
            done, _ = ray.wait([*probes], num_returns=len(probes), timeout=_PROBE_TIMEOUT_S)
            found = {ref: _answer(ref) if ref in done else None for ref in probes}
        finally:
            store.delete(name)
        blind = sorted(host for ref, host in probes.items() if found[ref] is False)
        silent = sorted(host for ref, host in probes.items() if found[ref] is None)
        if blind:
            raise InputError(
                str(store),
                "output folder on a cluster",
                "one that every machine reads",
                f"one that {', '.join(blind)} cannot see",
                "Use a folder on NFS, or s3://bucket/folder.",
            )
        if silent:  # lost, perhaps, or busy: no reason to end a run that others can go on with
            hosts = ", ".join(silent)
            print(f"no answer from {hosts}: whether it reads {store} is open", file=sys.stderr)
            return
        self.shared_stores.add(store.uri)


def _ask_for_nodes() -> Mapping[Any, Any]:
    """Ask the head node for all nodes there ever were.

    ray.nodes() has no timeout: an answer that is lost would hold the driver for ever.
    """
    head: Any = ray._private.worker.global_worker
    for _ in range(_ASK_TRIES):
        with suppress(ray.exceptions.RpcError, ray.exceptions.GetTimeoutError):
            return dict(head.gcs_client.get_all_node_info(timeout=_ASK_TIMEOUT_S))
    raise ConnectError(
        ray.get_runtime_context().gcs_address,
        "Ray has stopped answering",
        "the list of its nodes",
        f"none within {_ASK_TRIES * _ASK_TIMEOUT_S:g} s",
        "Look whether the head node still runs, and run the same command again to resume.",
    )


@ray.remote(num_cpus=0, max_retries=2)
def _reads(store: Store, name: str, token: bytes) -> bool:
    try:
        return store.read_bytes(name) == token
    except OSError:
        return False


def _answer(ref: Any) -> bool | None:
    """Return whether a machine reads the store; None when it was lost before it could say."""
    try:
        return bool(ray.get(ref))
    except ray.exceptions.RayTaskError:
        return False
    except ray.exceptions.RayError:
        return None
