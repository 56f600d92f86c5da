"""`tenfold doctor` and `tenfold node-resources`."""

from dataclasses import asdict

import typer

from cluster.connect import ClusterConfig, connect
from cluster.doctor import Check, check_cluster, check_machine
from cluster.errors import ConnectError
from cluster.resources import node_resources
from pipelines.flags import with_flags_of
from pipelines.terminal import Json, print_json, print_rows

root = typer.Typer()


@root.command("doctor")
@with_flags_of(ClusterConfig)
def doctor(config: ClusterConfig, *, json_line: Json = False) -> None:
    """Check what this machine and the cluster offer, and whether each promise holds here.

    Example: `tenfold doctor`

    Example: `tenfold doctor --address 10.0.0.5:6379 --json`
    """
    checks = check_machine()
    try:
        with connect(config) as cluster:
            checks += check_cluster(cluster)
    except ConnectError as error:
        detail = f"{error.where}: {error.what}: expected {error.expected}, got {error.got}"
        checks.append(Check("ray cluster", "wrong", detail, error.fix))
    if json_line:
        print_json({"checks": [asdict(check) for check in checks]})
    else:
        print_rows([asdict(check) for check in checks])
    if any(check.status == "wrong" for check in checks):
        raise typer.Exit(1)


@root.command("node-resources")
def show_node_resources(*, json_line: Json = False) -> None:
    """Print the resources of this machine as JSON, for `ray start --resources`.

    Example: `ray start --address HEAD:6379 --resources "$(tenfold node-resources)"`
    """
    del json_line  # always JSON: it is made to be passed on
    print_json(node_resources())
