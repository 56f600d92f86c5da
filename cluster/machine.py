"""Which machine this is."""

import platform
import uuid
from contextlib import suppress
from pathlib import Path


def _machine() -> str:
    """Return what tells this machine, its boot and its process numbers from others."""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    return f"{platform.node()} {uuid.getnode():x}"


MACHINE = _machine()
