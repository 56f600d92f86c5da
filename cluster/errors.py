"""Exceptions of Tenfold.

::

    TenfoldError              a fault of ours; exit code 1
    ├── InputError            bad input by the user; exit code 2
    │   └── ConnectError      Ray unreachable, or its token refused; exit code 2
    └── ShardsFailed          shards or units that failed after all retries; exit code 1

Messages read ``<where>: <what>: expected <…>, got <…>. <One action>.``
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_LISTED = 10  # ids named in a message; the rest are counted


class TenfoldError(Exception):
    """Base of all our exceptions."""

    exit_code = 1


class InputError(TenfoldError):
    """Something the user gave cannot be used; says what, where and how to fix it.

    Parameters
    ----------
    where : str
        File, shard, option or address that the complaint is about.
    what : str
        What about it: a column, a value, a state.
    expected, got : object, optional
        Filled into the message when given.
    fix : str, optional
        One action that helps, as a sentence.
    """

    exit_code = 2

    def __init__(
        self,
        where: str,
        what: str,
        expected: object | None = None,
        got: object | None = None,
        fix: str = "",
    ) -> None:
        self.where, self.what, self.expected, self.got, self.fix = where, what, expected, got, fix
        contrast = [
            f"{word} {value}"
            for word, value in (("expected", expected), ("got", got))
            if value is not None
        ]
        complaint = ": ".join([where, what, *([", ".join(contrast)] if contrast else [])])
        super().__init__(f"{complaint.rstrip('.')}. {fix}".rstrip())

    # Exception pickles its message alone, which our constructor does not take: name the parts,
    # or the error could not come back from a worker.
    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.where, self.what, self.expected, self.got, self.fix)


class ConnectError(InputError):
    """The Ray cluster asked for cannot be joined."""


class ShardsFailed(TenfoldError):
    """Shards (or units) that failed after all retries.

    Parameters
    ----------
    label : str
        The stage they belong to.
    failed : mapping of id to cause
        Why each of them failed, as text; the first cause is quoted in the message.
    """

    def __init__(self, label: str, failed: Mapping[str, str]) -> None:
        self.label, self.failed = label, dict(failed)
        names = ", ".join(list(self.failed)[:_LISTED])
        more = len(self.failed) - _LISTED
        names += f" and {more} more" if more > 0 else ""
        first = next(iter(self.failed.values()), "no cause recorded").strip()
        super().__init__(
            f"{label}: {len(self.failed)} failed ({names}). First cause: {first}\n"
            "What is finished is kept: run the same command again to do only the rest."
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.label, self.failed)
