"""`tenfold runs` and `tenfold resume`."""

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from cluster.progress import duration
from pipelines import cli
from pipelines.resume import command_to_resume
from pipelines.runs import DEFAULT_FOLDERS, Run, find_runs
from pipelines.terminal import Json, print_json, print_rows

root = typer.Typer()


@root.command("runs")
def list_runs(
    *,
    folders: Annotated[
        list[str] | None,
        typer.Argument(
            help="Folders of runs, local or s3://; default runs and data.", show_default=False
        ),
    ] = None,
    json_line: Json = False,
) -> None:
    """List runs, the newest first: state, progress, cost and headline number.

    CPU time is that of all machines, memory that of the machine the run was started on; of all
    attempts together.

    Example: `tenfold runs`

    Example: `tenfold runs runs demo s3://team/runs --json`
    """
    runs = find_runs(folders or DEFAULT_FOLDERS)
    if json_line:
        print_json({"runs": [run.as_json() for run in runs]})
        return
    print_rows([_row(run) for run in runs])
    for run in runs:
        if run.can_resume and run.record is not None:
            why = f": {run.record.error.rstrip('.')}" if run.record.error else ""
            print(f"{run.state}{why}. Resume with: tenfold resume {_short(run)}")


@root.command("resume")
def resume(
    *,
    run: Annotated[str, typer.Argument(help="Run folder.", show_default=False)],
    json_line: Json = False,
) -> None:
    """Go on with a run that was stopped, failed or lost its driver, with the options it had.

    Finished work is kept. A run that is finished is left as it is.

    Example: `tenfold resume runs/first`
    """
    command = command_to_resume(run)
    if command is None:
        if json_line:
            print_json({"run": run, "state": "finished"})
        else:
            print(f"{run} is finished: nothing to do")
        return
    at = command.index("--") if "--" in command else len(command)
    arguments = [*command[:at], *(["--json"] if json_line else []), *command[at:]]
    cli.make_app(command[:1])(arguments)


def _row(run: Run) -> dict[str, Any]:
    record = run.record
    if record is None:
        return {"run": _short(run), "job": None, "state": run.state, **dict.fromkeys(
            ("progress", "started", "took", "CPU", "peak", "result"))}  # fmt: skip
    done = f"{record.stage} {record.done:,}/{record.total:,}" if record.stage else None
    return {
        "run": _short(run),
        "job": " ".join(record.command[:2]),
        "state": run.state,
        "progress": None if run.state == "finished" else done,
        "started": _local(record.started),
        "took": duration(record.seconds),
        "CPU": duration(record.cpu_seconds),
        "peak": f"{record.peak_gib:.1f} GiB",
        "result": record.headline or None,
    }


def _short(run: Run) -> str:
    """Return the folder as it is named from here."""
    return run.folder.uri.removeprefix(f"{Path.cwd()}/")


def _local(moment: str) -> str:
    """Return a time as the clock on the wall shows it."""
    try:
        return f"{datetime.fromisoformat(moment).astimezone():%Y-%m-%d %H:%M}"
    except ValueError:
        return moment
