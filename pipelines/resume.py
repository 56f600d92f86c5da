"""Go on with a run by what it recorded: the same command, options and folder."""

import os
import shlex
import sys
from pathlib import Path
from typing import Any

from cluster.errors import InputError
from cluster.lock import find_holder
from cluster.run_record import RunRecord, code_version, tenfold_version
from cluster.storage import Store
from pipelines.inputs import require_unchanged
from pipelines.run_folder import OUT
from pipelines.runs import open_run

# What a record may ask for: it is a file that others may have written.
_COMMANDS = (
    ("news", "fit"),
    ("news", "demo"),
    ("fpcb", "generate"),
    ("fpcb", "features"),
    ("fpcb", "import"),
    ("fpcb", "train"),
    ("fpcb", "run"),
    ("fpcb", "score"),
)


def command_to_resume(folder: str) -> list[str] | None:
    """Return the arguments of ``tenfold`` that go on with a run; None when it is finished.

    Works in the folder that the run was started in from then on, for relative paths.

    Raises
    ------
    InputError
        When there is no such run, it is running, what it reads has changed, or no command line can
        say its options.
    """
    store = Store(folder)
    run = open_run(store)
    if run is None or run.record is None:
        what = "no run" if run is None else "a run without a record (run.json)"
        raise InputError(folder, what, fix="`tenfold runs FOLDER` lists the runs of a folder.")
    record = run.record
    holder = find_holder(store)
    if holder is not None:
        raise InputError(folder, f"still running: {holder.describe()}", fix="Let it finish.")
    command = _checked(record, folder)
    if run.state == "finished":
        return None
    _work_in(record.directory)
    anew = f"To begin anew with it: tenfold {shlex.join(command)}"
    require_unchanged(record.inputs, anew)
    if (record.tenfold, record.code) != (tenfold_version(), code_version()):
        _say(
            f"note: started by another version of Tenfold ({record.tenfold}, code {record.code}; "
            f"here {tenfold_version()}, code {code_version()}): finished pieces are kept where the "
            "code that makes them is the same, and made again where it is not"
        )
    _say(f"resuming after attempt {record.attempts}: tenfold {shlex.join(command)}")
    return command


def _checked(record: RunRecord, folder: str) -> list[str]:
    """Return the recorded command, with the folder where it lies now.

    The record is text that anybody may have written: only jobs' own commands are run.
    """
    command = record.command
    if not _are_words(command) or tuple(command[:2]) not in _COMMANDS:
        raise InputError(f"{folder}/run.json", "no command of Tenfold's", got=repr(command)[:60])
    command = [*command]
    at = next((k for k, word in enumerate(command) if word.startswith(OUT)), None)
    if at is None:
        raise InputError(
            folder, "was started by Python code with options that no command line can say",
            fix="Run the same call again: finished work is kept.",
        )  # fmt: skip
    if tuple(command[:2]) != ("news", "demo"):  # which keeps its run below its folder
        command[at] = f"{OUT}{Store(folder).uri}"
    return command


def _are_words(command: Any) -> bool:
    return isinstance(command, list) and all(isinstance(word, str) for word in command)


def _work_in(directory: str) -> None:
    """Make relative paths mean what they meant, where that folder is still there."""
    if Path(directory).is_dir():
        os.chdir(directory)
    else:
        _say(f"note: started in {directory}, which is not here: relative paths begin here")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
