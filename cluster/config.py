"""Which Ray to use, and where a run is kept; no ray import here."""

from __future__ import annotations

from dataclasses import dataclass, field

from cluster.errors import InputError


@dataclass(frozen=True, kw_only=True)
class ClusterConfig:
    """Which Ray to use."""

    address: str | None = field(
        default=None,
        metadata={"help": "Ray to join: host:port or auto; default RAY_ADDRESS, else embedded."},
    )
    num_cpus: int | None = field(
        default=None, metadata={"help": "Cores of an embedded Ray; default all."}
    )
    object_store_gib: float | None = field(
        default=None, metadata={"help": "Object store of an embedded Ray, in GiB."}
    )
    dashboard: bool = field(
        default=True, metadata={"help": "Serve the Ray dashboard from an embedded Ray."}
    )
    log_to_driver: bool = field(
        default=False, metadata={"help": "Copy what workers print to stderr."}
    )

    def __post_init__(self) -> None:
        if self.num_cpus is not None and self.num_cpus < 1:
            raise InputError("--num-cpus", "cores of Ray", "at least 1", self.num_cpus)
        # Ray refuses an object store below 75 MiB with a message about its own flags.
        if self.object_store_gib is not None and not 0.1 <= self.object_store_gib < float("inf"):
            raise InputError("--object-store-gib", "size", "at least 0.1", self.object_store_gib)


@dataclass(frozen=True, kw_only=True)
class FolderConfig:
    """Where a run is kept."""

    out: str | None
    wait: bool = field(
        default=False,
        metadata={"help": "Wait while another process works in the folder, in place of an error."},
    )

    def __post_init__(self) -> None:
        if self.out is not None and not self.out.strip():
            raise InputError("--out", "empty", fix="Name a folder, or leave the option out.")
