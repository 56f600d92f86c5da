"""The ``tenfold`` command: flags in, results on stdout, progress on stderr, exit codes 0, 1 and 2."""

import json
import sys
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from cluster.errors import TenfoldError
from pipelines.flags import with_flags_of
from pipelines.news.config import NewsConfig

app = typer.Typer(
    name="tenfold",
    help="Sentiment dictionaries from news, on the machines you own.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    add_completion=False,
)
news = typer.Typer(
    help="News texts and prices to a sentiment dictionary.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)
app.add_typer(news, name="news")

Json = Annotated[
    bool, typer.Option("--json", help="End stdout with one JSON object, and print nothing else.")
]


@news.command("fit")
@with_flags_of(NewsConfig)
def news_fit(config: NewsConfig, *, json_line: Json = False) -> None:
    """Fit a sentiment dictionary to news and prices.

    Example: `tenfold news fit --news news.parquet --prices prices.parquet --out runs/first`

    Run the same command again to resume a run that was stopped: finished work is not repeated.
    """
    from pipelines.news.run import fit

    run = fit(config)
    headline = {
        "run": run.folder.uri,
        "report": f"{run.folder.uri}/report.html",
        "targets": run.metrics["targets"],
        "seconds": run.metrics["total_seconds"],
        "peak_gib": run.metrics["peak_gib"],
    }
    if json_line:
        _print_json(headline)
        return
    table = Table("target", "words", "largest gap", "R2", "IC", "rank IC", "IR", "direction")
    for name, m in run.metrics["targets"].items():
        table.add_row(
            name,
            str(m["nonzeros"]),
            f"{m['largest_gap']:.0e}",
            *(_number(m[key]) for key in ("oof_r2", "ic", "rank_ic", "daily_ir")),
            _number(m["directional_accuracy"]),
        )
    console = Console()
    console.print(table)
    print(f"report: {headline['report']}\nrun folder: {headline['run']}")


def main() -> None:
    """Run the command line; a fault of the user's ends with 2, one of ours with 1."""
    try:
        app()
    except TenfoldError as error:
        print(f"tenfold: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("tenfold: stopped. Run the same command to resume.", file=sys.stderr)
        sys.exit(130)


def _print_json(value: Any) -> None:
    print(json.dumps(value), flush=True)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
