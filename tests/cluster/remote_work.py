"""What the tests of shards and units run in workers; imported by them, never a test itself."""

import os
import signal
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import ray
from threadpoolctl import threadpool_info

from cluster.errors import InputError


@dataclass(frozen=True)
class Task:
    """A shard whose first attempt may go wrong, as the ``flag`` file does not exist yet."""

    number: int
    flag: Path | None = None
    how: str = "well"
    seconds: float = 0.0


def misbehave_once(flag, how):
    if flag is None or flag.exists():
        return
    flag.touch()
    if how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "stalled":
        os.kill(os.getpid(), signal.SIGSTOP)
    if how == "machine stopped":  # which is a session here, as `Raylets` starts it
        for pid in psutil.pids():
            with suppress(ProcessLookupError):  # it may just have ended
                if os.getsid(pid) == os.getsid(0) and pid != os.getpid():
                    os.kill(pid, signal.SIGSTOP)
        os.kill(os.getpid(), signal.SIGSTOP)
    if how == "raised":
        raise KeyError("the first attempt goes wrong")


def write_rows(task, store):
    """Write a file; what goes wrong goes wrong in the middle of it."""
    time.sleep(task.seconds)
    name = f"rows-{task.number:03d}.bin"
    data = np.random.default_rng(task.number).bytes(100 + task.number)
    with store.open_output(name) as sink:
        sink.write(data[:50])
        sink.flush()
        misbehave_once(task.flag, task.how)
        sink.write(data[50:])
    return {"rows": 100 + task.number, "files": [name]}


def write_slowly_once(task, store):
    """As with a library that loads; interrupted there, its process could not load it again."""
    if task.flag and not task.flag.exists():
        task.flag.write_text(str(os.getpid()))
        time.sleep(task.seconds)
    return write_rows(Task(task.number), store)


def refuse(task, store):
    store.write_bytes(f"call-{uuid.uuid4()}", b"")
    raise InputError("news.csv", "column 'date'", "ISO dates", "'N/A'", "Fix the row.")


def always_raise(task, store):
    if task.number == 2:
        raise ValueError("this shard cannot be done")
    return write_rows(task, store)


def compute(seconds):
    """Keep a core busy for so many CPU seconds."""
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def compute_for(seconds, store):
    compute(seconds)
    return {}


def name_a_missing_file(task, store):
    return {"files": ["never-written"]}


def report_threads(task, store):
    _ = np.ones((2, 2)) @ np.ones((2, 2))
    return {"threads": max(pool["num_threads"] for pool in threadpool_info())}


def wait_for_names(folder, count):
    """Wait until that many have left their names in a folder."""
    deadline = time.monotonic() + 60
    while count and len([*folder.iterdir()]) < count:
        assert time.monotonic() < deadline
        time.sleep(0.01)


@ray.remote
class Solver:
    """Adds its payload to the predecessor's result; each flag file makes one call go wrong."""

    def __init__(self, refuses=False, raises=False, speed=1.0):
        self.speed = speed
        if refuses:
            raise InputError("engine", "name", "one of ours", "'abacus'", "Choose one.")
        if raises:
            raise OSError("no device")

    def solve(self, payload, previous):
        misbehave_once(payload.get("flag"), payload.get("how"))
        if payload.get("how") == "refused":
            raise InputError("unit", "alpha", "above 0", -1, "Raise it.")
        if payload.get("how") == "broken":
            raise ValueError("cannot be solved")
        if "there" in payload:
            payload["there"].joinpath(str(payload.get("name", os.getpid()))).touch()
        wait_for_names(payload.get("there"), payload.get("names", 0))
        time.sleep(payload.get("seconds", 0.0) / self.speed)
        compute(payload.get("cpu_seconds", 0.0))
        start = previous["w"] if previous else np.zeros(3)
        return {
            "w": start * 0.5 + payload["k"],
            "gap": np.float64(1e-7),
            "pid": np.int64(os.getpid()),
        }
