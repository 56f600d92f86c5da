"""What `cluster.units` solves; no ray import here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Unit:
    """One piece of solver work: ``payload`` for the worker, after the unit ``after`` if any.

    ``cost`` is a guess at the work in it, in any unit that the units of one call share: it says
    which go first, and how many travel together.
    """

    key: str
    payload: dict[str, Any]
    after: str | None = None
    cost: float = 1.0
