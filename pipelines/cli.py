"""The ``tenfold`` command: results on stdout, progress on stderr, exit codes 0, 1 and 2."""

import sys
from importlib import import_module

import typer

from cluster.errors import TenfoldError

_INTERRUPTED = 130

# Where the commands are: an ``app`` of a group, or single ones in a ``root``.
_GROUPS = {
    "news": "pipelines.news.commands",
    "fpcb": "pipelines.fpcb.commands",
    "bench": "pipelines.bench.commands",
}
_SINGLE = {
    "profile": "pipelines.bench.commands",
    "doctor": "pipelines.machine_commands",
    "node-resources": "pipelines.machine_commands",
    "runs": "pipelines.run_commands",
    "resume": "pipelines.run_commands",
}


def main() -> None:
    """Run the command line; a fault of the user's ends with 2, one of ours with 1."""
    try:
        make_app(sys.argv[1:2])()
    except TenfoldError as error:
        print(f"tenfold: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except SystemExit as end:
        if end.code == _INTERRUPTED:  # what typer makes of Ctrl-C, without a word
            print("tenfold: stopped. Run the same command to resume.", file=sys.stderr)
        raise


def make_app(first: list[str]) -> typer.Typer:
    """Return the command with what its first word asks for, else with everything.

    A job's libraries take seconds to import, which the other job need not wait for.
    """
    app = typer.Typer(
        name="tenfold",
        help="Sentiment dictionaries from news, and cracked circuit boards found, on the machines "
        "you own.",
        no_args_is_help=True,
        rich_markup_mode="markdown",
        pretty_exceptions_enable=False,
        add_completion=False,
    )
    app.callback()(lambda: None)
    known = {*_GROUPS, *_SINGLE}
    chosen = known.intersection(first) or known
    for name, module in _GROUPS.items():
        if name in chosen:
            app.add_typer(import_module(module).app, name=name)
    for module in dict.fromkeys(_SINGLE[name] for name in _SINGLE if name in chosen):
        app.registered_commands += import_module(module).root.registered_commands
    return app
