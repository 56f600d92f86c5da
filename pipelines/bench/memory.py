"""Peak memory of this process, its parent's left out."""

import contextlib
import resource
import sys
from pathlib import Path


def peak_gib() -> float:
    """Return the highest resident memory of this program so far, in GiB.

    On Linux ``ru_maxrss`` starts at what the parent used when it forked; ``VmHWM`` does not.
    """
    if sys.platform == "linux":
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 2**20
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def forget_peak() -> None:
    """Start the peak anew at what is resident now, where the system can (Linux)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
