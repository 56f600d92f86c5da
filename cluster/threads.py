"""Threads of the numerical libraries inside a worker; no ray import here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from threadpoolctl import threadpool_limits


@contextmanager
def limited_threads(count: float) -> Iterator[None]:
    """Let BLAS and OpenMP use ``count`` threads (at least 1) inside the block.

    Ray sets OMP_NUM_THREADS to the cores of a task, but hands tasks to processes whose libraries
    have read it already, for another task.
    """
    with threadpool_limits(max(1, int(count))):
        yield
