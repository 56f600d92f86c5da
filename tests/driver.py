"""A command in a process of its own, to be killed; and what runs below a process."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[1]
TIMEOUT_S = 240.0


# A shell that starts this suite in the background makes it, and all it starts, deaf to Ctrl-C.
# Not by preexec_fn, which forks this process with all of Ray's threads: in processes that had done
# so, and in no others, answers of Ray's head were lost (seen on Linux 6.18; why, we do not know).
_THEN = "signal.signal(signal.SIGINT, signal.SIG_DFL); os.execv(sys.argv[1], sys.argv[1:])"
HEED_CTRL_C = (sys.executable, "-c", f"import os, signal, sys; {_THEN}")


class Driver:
    """``tenfold ARGUMENTS`` (or ``python ARGUMENTS``), which writes into the folder ``out``.

    It leads a process group of its own; what it says is in the file ``log``.
    """

    def __init__(self, out, environment, *arguments, module="pipelines", inside=()):
        self.out, self.log = Path(out), Path(f"{out}.log")
        started = ("-m", module, *arguments) if module else arguments
        with self.log.open("w") as sink:
            self.process = subprocess.Popen(
                [*inside, *HEED_CTRL_C, sys.executable, *map(str, started)],
                env={**environment, "PYTHONPATH": str(ROOT)},
                stdout=subprocess.DEVNULL,
                stderr=sink,
                start_new_session=True,
            )

    def wait_for(self, condition, what="what was waited for"):
        """Wait until ``condition()`` is true of the running driver; return what it gave."""
        deadline = time.monotonic() + TIMEOUT_S
        while not (found := condition()):
            assert self.process.poll() is None, f"ended before {what}:\n{self.said}"
            assert time.monotonic() < deadline, f"no {what} in time:\n{self.said}"
            time.sleep(0.01)
        return found

    @property
    def said(self):
        return self.log.read_text()

    def finished(self, part="."):
        """Return how many pieces are finished, by the manifests below ``part`` of the folder."""
        manifests = self.out.glob(f"{part}/**/_manifest.jsonl")
        return sum(len(path.read_bytes().splitlines()) for path in manifests)

    def kill(self):
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def wait(self):
        return self.process.wait(timeout=TIMEOUT_S), self.said

    def finish(self):
        """Wait for a good end; return what was said."""
        code, said = self.wait()
        assert code == 0, said
        return said


def wait_until(condition, what, timeout_s=30.0):
    """Wait until ``condition()`` is true: what a process leaves behind ends soon, not at once."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not in time: {what}"
        time.sleep(0.05)


def title(process):
    """Return what a process calls itself; nothing when it has gone, or is a zombie."""
    try:
        return " ".join(process.cmdline()[:1])
    except psutil.Error:
        return ""


def below(pid):
    """Return the processes below ``pid``."""
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def processes(start, pid=None):
    """Return the processes below ``pid`` (this one by default) whose title starts so."""
    return [p for p in below(pid or os.getpid()) if title(p).startswith(start)]
