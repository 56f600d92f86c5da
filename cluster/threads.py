"""Threads of the numerical libraries inside a worker; no ray import here."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from threadpoolctl import threadpool_limits


def set_threads(count: float) -> None:
    """Let BLAS and OpenMP of this process use ``count`` threads from now on (at least 1).

    Ray sets OMP_NUM_THREADS to the cores of a task, but reuses processes whose libraries have
    read it already: long-lived actors call this in their constructor.
    """
    threads = max(1, int(count))
    os.environ["OMP_NUM_THREADS"] = str(threads)  # for libraries that are yet to be loaded
    threadpool_limits(threads)


@contextmanager
def limited_threads(count: float) -> Iterator[None]:
    """Let BLAS and OpenMP use ``count`` threads (at least 1) inside the block."""
    with threadpool_limits(max(1, int(count))):
        yield
