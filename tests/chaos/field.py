"""The machines that are disturbed: a head, and two nodes of a core that are replaced when lost."""

import itertools
import os
import shutil
import subprocess
from contextlib import suppress

from chaos.processes import AGENTS, RAYLET, in_sessions, store_mib
from raylets import Raylets

# A node that does not answer is dead after some 15 s, not after a minute as by default.
HEALTH = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "5",
}
_NODES = 2
_TRIES = 4  # Ray gives up a start after 30 s, which a busy machine may need
_STORE_MIB = 200
_DISK = "256m"


class Field:
    """A cluster that is mended between runs; a context manager that leaves nothing."""

    def __init__(self):
        self._numbers = itertools.count(1)
        self.sessions = set()  # of all nodes that have been started, also those that are lost

    def __enter__(self):
        os.environ.update(HEALTH)
        for last in range(_TRIES):
            self.raylets, self.nodes = Raylets(), []
            try:
                # Without a dashboard, Ray Train's cleaners outlive the trainings of killed drivers.
                head = self.raylets.head(0, dashboard=True, object_store_mib=_STORE_MIB)
                self.sessions.add(head.process.pid)
                self.mend()
            except BaseException as error:
                self.raylets.close()
                if not isinstance(error, AssertionError) or last == _TRIES - 1:
                    raise
            else:
                break
        return self

    def __exit__(self, *_):
        for node in self.nodes:
            node.resume()  # what is stopped could not be ended
        self.raylets.close()
        for name in HEALTH:
            os.environ.pop(name, None)

    @property
    def joining(self):
        """Variables of a driver on this cluster."""
        return self.raylets.environment()

    @property
    def alone(self):
        """Variables of a driver that starts a Ray of its own."""
        return {name: value for name, value in self.joining.items() if name != "RAY_ADDRESS"}

    def mend(self):
        """Replace the nodes that were lost, and wait for them."""
        for last in range(_TRIES):
            for node in [node for node in self.nodes if not _alive(node)]:
                self._forget(node)
            while len(self.nodes) < _NODES:
                self._join()
            try:
                for node in self.nodes:
                    node.wait_until_started()
            except AssertionError:
                if last == _TRIES - 1:
                    raise
            else:
                return

    def replace(self, node):
        """End what is left of a node, and start another in its place, without waiting for it."""
        self._forget(node)
        self._join()

    def workers(self):
        """Return the processes of Ray's workers, with the node that each belongs to."""
        owner = {node.process.pid: node for node in self.nodes}
        found = []
        for pid, node in owner.items():
            seen = in_sessions({pid})
            found += [(one, node) for one in seen if one.title.startswith("ray::")
                      and not one.title.startswith(AGENTS)]  # fmt: skip
        return found

    def stored_mib(self):
        """Return what the object stores hold, of all nodes and the head."""
        raylets = [node.raylet for node in self.raylets.nodes.values() if _alive(node)]
        return sum(store_mib(raylet) for raylet in raylets)

    def _join(self):
        name = f"n{next(self._numbers)}"
        self.nodes.append(self.raylets.join(name, 1, object_store_mib=_STORE_MIB, wait=False))
        self.sessions.add(self.nodes[-1].process.pid)

    def _forget(self, node):
        node.resume()
        node.end()
        self.nodes.remove(node)
        self.raylets.nodes = {k: v for k, v in self.raylets.nodes.items() if v is not node}


class SmallDisk:
    """A disk of its own for run folders, that can be filled."""

    def __init__(self, folder):
        self.folder = folder
        self._filler = folder / "other people's files"

    @staticmethod
    def works(folder):
        """Tell whether this machine lets us mount one; if not, that scenario is left out."""
        with suppress(OSError, subprocess.SubprocessError), SmallDisk(folder):
            return True
        return False

    def __enter__(self):
        self.folder.mkdir(parents=True, exist_ok=True)
        mount = shutil.which("mount")
        if mount is None:
            raise OSError("no mount here")
        command = [mount, "-t", "tmpfs", "-o", f"size={_DISK}", "none", self.folder]
        subprocess.run(command, check=True, capture_output=True)
        return self

    def __exit__(self, *_):
        subprocess.run(["umount", "-l", self.folder], check=True)

    def fill(self):
        """Leave no room."""
        block = bytes(1 << 20)
        with suppress(OSError), self._filler.open("ab", buffering=0) as sink:
            while sink.write(block):
                pass

    def free(self):
        """Take away what `fill` wrote."""
        self._filler.unlink(missing_ok=True)


def _alive(node):
    """Tell whether a node may work: without a raylet, ``ray start --block`` may go on for ever."""
    starting = not node.has_started()
    raylets = [one for one in in_sessions({node.process.pid}) if one.name == RAYLET]
    return node.process.poll() is None and bool(starting or raylets)
