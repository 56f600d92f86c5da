"""The processes of sessions that this harness started; it signals no other."""

import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

RAYLET = "raylet"
AGENTS = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")  # no workers: their raylet ends with them


@dataclass(frozen=True)
class Seen:
    """A process, and what it called itself when it was looked at."""

    process: psutil.Process
    title: str

    @property
    def name(self):
        """The program, for processes that have not renamed themselves."""
        return Path(self.title).name


def in_sessions(leaders):
    """Return the living processes of the sessions, orphans among them."""
    found = []
    for pid in psutil.pids():
        with suppress(psutil.Error, OSError):
            if os.getsid(pid) in leaders:
                process = psutil.Process(pid)
                line = Path(f"/proc/{pid}/cmdline").read_bytes()
                if line:  # a zombie has none
                    found.append(Seen(process, line.split(b"\0")[0].decode(errors="replace")))
    return found


def zombies(leaders):
    """Return the processes of the sessions that have ended, and nobody has asked how."""
    found = []
    for pid in psutil.pids():
        with suppress(psutil.Error, OSError):
            if os.getsid(pid) in leaders:
                process = psutil.Process(pid)
                if process.status() == psutil.STATUS_ZOMBIE:
                    found.append(process)
    return found


def still(seen):
    """Tell whether a process has the title it was found with: the work it was chosen for."""
    with suppress(psutil.Error, IndexError):
        return seen.process.cmdline()[0] == seen.title
    return False


def signal_all(processes, number):
    """Send a signal to each process that is there."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def store_mib(raylet):
    """Return how much of the object store that a raylet serves is in memory."""
    with suppress(psutil.Error, OSError):
        maps = raylet.memory_maps()
        return sum(part.rss for part in maps if "plasma" in part.path) / (1 << 20)
    return 0.0


def wait_until(condition, timeout_s):
    """Tell whether ``condition()`` came true in time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
