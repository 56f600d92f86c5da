"""Run the ``tenfold`` command in this process, as a user types it."""

import contextlib
import io
import json
import sys
from dataclasses import dataclass
from unittest import mock

from pipelines import cli


@dataclass(frozen=True)
class Outcome:
    """What a command left: exit code, stdout and stderr."""

    code: int
    out: str
    err: str

    @property
    def json(self):
        """The one JSON object that is all of stdout."""
        (line,) = self.out.splitlines()
        return json.loads(line)


def tenfold(*arguments):
    """Run ``tenfold ARGUMENTS``; an exception that would end in a traceback comes out."""
    out, err = io.StringIO(), io.StringIO()
    argv = ["tenfold", *map(str, arguments)]
    with (
        mock.patch.object(sys, "argv", argv),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            cli.main()
            code = 0
        except SystemExit as end:
            code = end.code or 0
    return Outcome(code, out.getvalue(), err.getvalue())
