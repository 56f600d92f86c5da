"""How each fault is done. A strike that finds nobody at work is none: it is tried again later."""

import json
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
from chaos.jobs import paths
from chaos.processes import RAYLET, in_sessions, signal_all, still, store_mib, wait_until

STALL_S = 4.0
_END_S = 90.0  # of a driver whose disk or Ray is gone
_ACTORS = {"path": "ray::LassoWorker.solve", "score": "ray::BankActor"}
_SOURCES = {"assemble": "count", "path": "assemble", "extract": "generate",
            "train": "features", "score": "features"}  # fmt: skip
_LEAST_STORE_MIB = 0.2


@dataclass
class Strike:
    """Something that went wrong, at a time of `time.monotonic`.

    Attributes
    ----------
    restart : bool
        Whether the driver has ended by it, as it should, and the user types the command again.
    noted : bool
        Whether the driver must say that something is done again: else nothing was hit.
    undo : callable, optional
        Ends the disturbance; called at ``until``, or when the run has ended.
    """

    at: float
    victim: str
    restart: bool = False
    noted: bool = False
    undo: Callable[[], None] | None = None
    until: float = float("inf")
    complaint: str = ""


@dataclass
class Scene:
    """What is there to be struck."""

    field: object
    driver: object
    job: object
    phase: object
    out: Path
    disk: object
    rng: random.Random

    def busy(self, title=""):
        """Return (worker, node) of those at work on the phase."""
        start = title or self.phase.title
        return [(seen, node) for seen, node in self.field.workers() if seen.title.startswith(start)]

    def pick(self, title=""):
        """Choose one of those at work; None when there are none, or it has just ended."""
        found = self.busy(title)
        if not found:
            return None, None
        seen, node = self.rng.choice(found)
        return (seen, node) if still(seen) else (None, None)


def strike(victim, scene):
    """Do what `plan.Variant.victim` names; None when nobody is at work there now."""
    return _STRIKES[victim](scene)


def _task(scene):
    return _kill_one(scene, "", noted=True)


def _actor(scene):
    title = _ACTORS[scene.phase.name]
    return _kill_one(scene, title, noted=scene.phase.name == "path")


def _trainer(scene):
    return _kill_one(scene, "", noted=False)


def _kill_one(scene, title, *, noted):
    seen, _ = scene.pick(title)
    if seen is None:
        return None
    at = time.monotonic()
    seen.process.kill()
    return Strike(at, f"{seen.title} ({seen.process.pid})", noted=noted)


def _all_of_node(scene):
    seen, node = scene.pick()
    if seen is None:
        return None
    doomed = [one.process for one, there in scene.field.workers() if there is node]
    at = time.monotonic()
    signal_all(doomed, signal.SIGKILL)
    return Strike(at, f"{len(doomed)} workers of {node.name}, {seen.title} among them")


def _raylet(scene):
    seen, node = scene.pick()
    if seen is None:
        return None
    return _kill_raylet(scene, node, f"raylet of {node.name}, which ran {seen.title}")


def _store_of_node(scene):
    seen, node = scene.pick()
    if seen is None or (held := store_mib(node.raylet)) < _LEAST_STORE_MIB:
        return None
    what = f"object store of {node.name} with {held:.1f} MiB, below {seen.title}"
    return _kill_raylet(scene, node, what)


def _kill_raylet(scene, node, what):
    raylet = node.raylet
    at = time.monotonic()
    raylet.kill()
    scene.field.replace(node)
    return Strike(at, what)


def _driver(scene):
    at = time.monotonic()
    scene.driver.kill()
    return Strike(at, f"driver ({scene.driver.process.pid})", restart=True)


def _store_of_driver(scene):
    below = in_sessions({scene.driver.process.pid})
    raylets = [seen.process for seen in below if seen.name == RAYLET]
    at_work = [seen for seen in below if seen.title.startswith(scene.phase.title)]
    if len(raylets) != 1 or not at_work:
        return None
    held = store_mib(raylets[0])
    at = time.monotonic()
    raylets[0].kill()
    what = f"the driver's own raylet, its store with {held:.1f} MiB"
    return Strike(at, what, restart=True, complaint=_ended(scene.driver, (1,)))


def _disk(scene):
    if not scene.busy():
        return None
    at = time.monotonic()
    scene.disk.fill()
    complaint = _ended(scene.driver, (2,))
    if not complaint and "no room left to write" not in scene.driver.said:
        complaint = "the driver did not say that there is no room left"
    scene.disk.free()
    return Strike(at, "room on the disk", restart=True, complaint=complaint)


def _ended(driver, codes):
    """Wait for the driver's own end; return what is wrong with it."""
    if not wait_until(lambda: driver.process.poll() is not None, _END_S):
        driver.kill()
        return f"the driver went on for {_END_S:g} s"
    if driver.process.returncode not in codes:
        return f"exit code {driver.process.returncode}: {driver.said[-400:]}"
    if "Traceback" in driver.said:
        return f"a traceback: {driver.said[-400:]}"
    return ""


def _stall(for_good, whole_node):
    def stall(scene):
        seen, node = scene.pick()
        if seen is None:
            return None
        stopped = node.processes() if whole_node else [seen.process]
        at = time.monotonic()
        signal_all(stopped, signal.SIGSTOP)

        def undo():
            if for_good and whole_node:
                scene.field.replace(node)
            elif for_good:
                signal_all(stopped, signal.SIGKILL)
            else:
                signal_all(stopped, signal.SIGCONT)

        until = float("inf") if for_good else at + STALL_S
        what = f"{node.name}, which ran {seen.title}" if whole_node else seen.title
        return Strike(at, f"{what}, stopped", undo=undo, until=until)

    return stall


def _corrupt(damage, *, source=False):
    def corrupt(scene):
        phase = scene.job.phase(_SOURCES[scene.phase.name]) if source else scene.phase
        found = _finished_files(scene.out, phase)
        if not found or scene.driver.process.poll() is not None:
            return None
        at = time.monotonic()
        scene.driver.kill()
        path = scene.rng.choice(found)
        damage(path, scene.rng)
        return Strike(at, f"{path.relative_to(scene.out)} ({damage.__name__})", restart=True)

    return corrupt


def flip(path, rng):
    """Change one bit, as a worn disk does: the size stays."""
    data = bytearray(path.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


def truncate(path, rng):
    """Cut a file short, as a machine does that loses its power."""
    data = path.read_bytes()
    path.write_bytes(data[: rng.randrange(len(data))])


def tear(path, rng):
    """Cut the last line of the manifest beside a file short."""
    manifest = next(folder / "_manifest.jsonl" for folder in path.parents
                    if (folder / "_manifest.jsonl").exists())  # fmt: skip
    data = manifest.read_bytes()
    manifest.write_bytes(data[: len(data) - rng.randrange(2, 60)])


def _finished_files(out, phase):
    """Return the files that the finished pieces of the phase have written."""
    found = []
    for manifest in paths(out, phase.manifests):
        for line in manifest.read_text().splitlines():
            with_files = json.loads(line) if line.endswith("}") else {"files": ()}
            found += [manifest.parent / name for name in with_files["files"]]
    return sorted({path for path in found if path.exists() and path.stat().st_size > 0})


_STRIKES = {
    "task": _task,
    "actor": _actor,
    "trainer": _trainer,
    "all of a node": _all_of_node,
    "raylet": _raylet,
    "driver": _driver,
    "disk": _disk,
    "worker for a while": _stall(for_good=False, whole_node=False),
    "worker for good": _stall(for_good=True, whole_node=False),
    "node for a while": _stall(for_good=False, whole_node=True),
    "node for good": _stall(for_good=True, whole_node=True),
    "flipped bit": _corrupt(flip),
    "flipped bit of its input": _corrupt(flip, source=True),
    "truncated file": _corrupt(truncate),
    "torn manifest": _corrupt(tear),
    "store of a node": _store_of_node,
    "store of the driver": _store_of_driver,
}
GONE = psutil.Error  # a process that ended while it was looked at: nobody was struck
