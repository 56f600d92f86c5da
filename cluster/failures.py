"""Tell apart the ways in which remote work fails: bad input, an exception, a lost process."""

from __future__ import annotations

import re

from ray.exceptions import ActorDiedError, RayActorError, RayTaskError

from cluster.errors import InputError

_TRACE_LINES = 12
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def input_error(error: BaseException) -> InputError | None:
    """Return the InputError that a worker raised, as it was raised there, else None."""
    cause = _remote_cause(error)
    return cause if isinstance(cause, InputError) else None


def is_loss(error: BaseException) -> bool:
    """Tell whether a process, node or object was lost, rather than our code raising."""
    return _task_error(error) is None


def describe_failure(error: BaseException) -> str:
    """Return the cause in a few lines: the exception with the end of its remote traceback."""
    task_error = _task_error(error)
    if task_error is None:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        where = [line for line in lines if line.startswith(("ip:", "pid:"))]
        return " ".join([f"{type(error).__name__}: {lines[0] if lines else ''}", *where]).strip()
    cause = _remote_cause(error)
    trace = _COLOUR.sub("", str(task_error)).rstrip().splitlines()[-_TRACE_LINES:]
    return "\n".join([f"{type(cause).__name__}: {cause}", *trace])


def actor_is_gone(error: BaseException) -> bool:
    """Tell whether the actor that was called can take no more calls."""
    return isinstance(error, RayActorError)


def _task_error(error: BaseException) -> RayTaskError | None:
    if isinstance(error, RayTaskError):
        return error
    # An actor whose constructor raised is reported as dead, with the exception as its argument.
    if isinstance(error, ActorDiedError) and error.args and isinstance(error.args[0], RayTaskError):
        return error.args[0]
    return None


def _remote_cause(error: BaseException) -> BaseException:
    task_error = _task_error(error)
    cause = getattr(task_error, "cause", None)
    return cause if isinstance(cause, BaseException) else error
