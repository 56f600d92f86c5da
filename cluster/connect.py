"""Open and close Ray: join a running cluster, or start one inside this process.

An embedded Ray listens on loopback alone. A cluster is joined from one of its nodes; from any
other machine use ``ray job submit``, which runs the driver on the cluster.
"""

from __future__ import annotations

import logging
import os
import platform
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import ray
from ray._common.usage.usage_lib import get_cluster_metadata
from ray._private import ray_constants, services
from ray._private.authentication.http_token_authentication import get_auth_headers_if_auth_enabled
from ray._private.runtime_env.constants import RAY_JOB_CONFIG_JSON_ENV_VAR
from ray._raylet import AuthenticationTokenLoader, Config, GcsClient  # type: ignore[attr-defined]
from ray.core.generated import gcs_service_pb2, gcs_service_pb2_grpc

from cluster.config import ClusterConfig as ClusterConfig
from cluster.errors import ConnectError
from cluster.nodes import Cluster
from cluster.resources import node_resources
from cluster.token import (
    MODE_VARIABLE,
    exposed_mode,
    make_token,
    token_enabled,
    token_path,
    token_present,
)

LOOPBACK = "127.0.0.1"
_PROBE_TIMEOUT_S = 6.0
_GIB = 1 << 30
# On a machine that does much else, starting takes longer than the 30 s that Ray waits by itself.
_PATIENCE = {"RAY_agent_register_timeout_ms": "120000", "RAY_raylet_start_wait_time_s": "120"}
_PRINT_WORKER_LOGS = ray._private.worker.print_worker_logs
_PACKAGES = ("cluster", "actors", "pipelines")
_ROOT = Path(__file__).resolve().parent.parent
_ADDRESS_FIX = (
    "Check that the head node runs and that this machine reaches it, "
    "or leave out the address (and RAY_ADDRESS) to use an embedded Ray."
)
_SUBMIT_FIX = "From another machine: ray job submit --working-dir . -- python -m pipelines …"


@contextmanager
def connect(config: ClusterConfig | None = None) -> Iterator[Cluster]:
    """Open Ray for the length of the block.

    Joins ``config.address`` or ``RAY_ADDRESS`` (which Ray sets in a submitted job), and starts an
    embedded Ray when neither is given. A Ray that this process has opened already is used as it
    is and left open.

    Raises
    ------
    ConnectError
        When the address does not answer within a few seconds, refuses our token, or runs another
        version of Ray.
    """
    config = config or ClusterConfig()
    if ray.is_initialized():
        yield _opened(embedded=False, borrowed=True)
        return
    address = config.address or os.environ.get("RAY_ADDRESS") or None
    embedded = address in (None, "local")
    _quieten(log_to_driver=config.log_to_driver)
    if embedded:
        _start(config)
    else:
        assert address is not None
        _join(address, config)
    try:
        yield _opened(embedded=embedded)
    finally:
        ray.shutdown()


def _opened(*, embedded: bool, borrowed: bool = False) -> Cluster:
    context = ray.get_runtime_context()
    node = ray._private.worker.global_worker.node
    url = node.webui_url if node is not None else None
    return Cluster(embedded, context.gcs_address, f"http://{url}" if url else None, borrowed)


def _quieten(*, log_to_driver: bool) -> None:
    """Keep Ray's own chatter off our streams: results go to stdout, progress to stderr."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")  # those of calls we have called off
    # Workers whose num_gpus is 0 keep seeing the devices: our own `cuda` resource assigns them.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    logging.getLogger("ray").setLevel(logging.ERROR)

    # Ray prints workers' output, and the raylet's notes on lost workers whatever is asked for, to
    # our stdout.
    def to_stderr(data: dict[str, Any], print_file: Any, ignore_prefix: bool = False) -> None:
        if log_to_driver:
            _PRINT_WORKER_LOGS(data, sys.stderr, ignore_prefix)

    ray._private.worker.print_worker_logs = to_stderr


def _start(config: ClusterConfig) -> None:
    """Start a Ray of our own, with token, on loopback."""
    os.environ.setdefault(MODE_VARIABLE, "token")
    if token_enabled() and not token_present():
        make_token(token_path())
    if token_enabled() and "RAY_AUTH_TOKEN" not in os.environ and exposed_mode(token_path()):
        token_path().chmod(0o600)
    for name, value in _PATIENCE.items():
        os.environ.setdefault(name, value)
    _reload_authentication()
    size_gib = config.object_store_gib
    with _loopback_only(), _environment(_worker_environment()):
        try:
            ray.init(
                address="local",
                num_cpus=config.num_cpus,
                resources=node_resources() or None,
                object_store_memory=None if size_gib is None else int(size_gib * _GIB),
                # None, not True: then a dashboard that fails to start is no reason to give up.
                include_dashboard=None if config.dashboard else False,
                dashboard_host=LOOPBACK,
                _node_ip_address=LOOPBACK,
                log_to_driver=config.log_to_driver,
                logging_level=logging.ERROR,
            )
        except Exception as error:  # Ray raises no narrower one
            ray.shutdown()
            raise ConnectError(
                "embedded Ray",
                "could not start on this machine",
                got=str(error).splitlines()[0] if str(error) else type(error).__name__,
                fix="Close what keeps the machine busy, or free memory, and run the same command "
                "again; tenfold doctor looks for the cause.",
            ) from error


def _join(address: str, config: ClusterConfig) -> None:
    """Join a running cluster, after making sure that it answers and accepts us.

    ray.init on an address that is silent keeps trying for two minutes, then ends the process.
    """
    if "://" in address:
        kind = "Ray Client" if address.startswith("ray://") else "dashboard"
        raise ConnectError(
            address,
            "Ray address",
            "host:port, or auto, on a node of the cluster",
            f"the address of a {kind}",
            _SUBMIT_FIX,
        )
    in_job = RAY_JOB_CONFIG_JSON_ENV_VAR in os.environ
    if not in_job:
        os.environ.setdefault(MODE_VARIABLE, "token")
        if token_enabled() and not token_present():
            raise ConnectError(
                address,
                "authentication token",
                f"one in RAY_AUTH_TOKEN or in {token_path()}",
                "none",
                "Copy the head node's token file there (mode 0600).",
            )
    _reload_authentication()
    try:
        target = services.canonicalize_bootstrap_address(address)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ConnectError(
            address, "Ray address", "a running Ray", str(error), _ADDRESS_FIX
        ) from error
    _probe(address, target or "")
    # A submitted job has our code in its working_dir already; elsewhere we bring the packages,
    # so that every node runs the code of this driver.
    runtime_env = None if in_job else {"py_modules": _package_folders()}
    try:
        ray.init(
            address=target,
            runtime_env=runtime_env,
            log_to_driver=config.log_to_driver,
            logging_level=logging.ERROR,
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        ray.shutdown()
        raise ConnectError(
            address,
            "cannot join this Ray",
            "a driver on one of its nodes",
            str(error).splitlines()[0],
            _SUBMIT_FIX,
        ) from error


def _probe(address: str, target: str) -> None:
    """Ask the head node whether it is alive, with our token."""
    headers = get_auth_headers_if_auth_enabled({})
    metadata = tuple((key.lower(), value) for key, value in headers.items())
    try:
        with grpc.insecure_channel(target, options=(("grpc.enable_http_proxy", 0),)) as channel:
            stub: Any = gcs_service_pb2_grpc.NodeInfoGcsServiceStub(channel)  # type: ignore[no-untyped-call]
            reply = stub.CheckAlive(
                gcs_service_pb2.CheckAliveRequest(),  # type: ignore[attr-defined]
                timeout=_PROBE_TIMEOUT_S,
                wait_for_ready=True,
                metadata=metadata,
            )
    except grpc.RpcError as error:
        refused = error.code() is grpc.StatusCode.UNAUTHENTICATED
        raise ConnectError(
            address,
            "Ray refused our authentication token" if refused else "Ray address unreachable",
            "the head node's token" if refused else "a Ray head node that answers",
            error.details() if refused else f"no answer within {_PROBE_TIMEOUT_S:g} s",
            f"Copy the head node's token to {token_path()} or set RAY_AUTH_TOKEN."
            if refused
            else _ADDRESS_FIX,
        ) from None
    _check_version(address, "Ray", reply.ray_version, ray.__version__)
    cluster = get_cluster_metadata(GcsClient(address=target))
    # Ray itself turns away a machine whose Python differs in the last digit.
    _check_version(address, "Python", cluster["python_version"], platform.python_version())


def _check_version(address: str, name: str, there: str, here: str) -> None:
    if there != here:
        raise ConnectError(
            address,
            f"version of {name}",
            f"{there} as on the head node",
            f"{here} on this machine",
            "Install the same version of Ray and Python on every node.",
        )


def _reload_authentication() -> None:
    """Let Ray see the mode and token set after it was imported."""
    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


@contextmanager
def _loopback_only() -> Iterator[None]:
    """Make the Ray started in this block listen on loopback.

    Ray replaces a loopback node address by the outward one, and then listens on all interfaces,
    unless it is told that this platform is not for clusters (its default on macOS).
    """
    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        with _environment({ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR: "0"}):
            yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


@contextmanager
def _environment(changes: Mapping[str, str]) -> Iterator[None]:
    """Set variables for the processes started in this block."""
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _worker_environment() -> dict[str, str]:
    """Return what workers of an embedded Ray need, to import what this driver can import."""
    own = [entry or str(Path.cwd()) for entry in sys.path]
    outside = [entry for entry in own if not entry.startswith((sys.prefix, sys.base_prefix))]
    return {"PYTHONPATH": os.pathsep.join(dict.fromkeys([str(_ROOT), *outside]))}


def _package_folders() -> list[str]:
    return [str(_ROOT / name) for name in _PACKAGES if (_ROOT / name).is_dir()]
