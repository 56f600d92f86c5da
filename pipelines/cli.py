"""The ``tenfold`` command: results on stdout, progress on stderr, exit codes 0, 1 and 2."""

import json
import sys
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cluster.connect import ClusterConfig, connect
from cluster.doctor import Check, check_cluster, check_machine
from cluster.errors import ConnectError, TenfoldError
from cluster.resources import node_resources
from pipelines.bench.config import LassoBenchConfig
from pipelines.bench.lasso import bench_lasso
from pipelines.bench.profile import ProfileConfig, profile
from pipelines.bench.table import cells
from pipelines.flags import with_flags_of
from pipelines.news.audit import AuditConfig, audit
from pipelines.news.config import NewsConfig
from pipelines.news.demo import DemoConfig, run_demo
from pipelines.news.diff import diff_dictionaries
from pipelines.news.run import NewsRun, fit
from pipelines.news.score import ScoreConfig, explain_text, score_texts

_PLAIN_WIDTH = 120  # of a table that goes to a file or a pipe
_WORDS_SHOWN = 15
_INTERRUPTED = 130

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
bench = typer.Typer(
    help="Side by side with peers, at the same certified answers.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)
app.add_typer(bench, name="bench")

Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on stdout, and nothing else there.")
]
Folder = Annotated[str, typer.Argument(help="Run folder that fit printed.", show_default=False)]


@news.command("fit")
@with_flags_of(NewsConfig)
def news_fit(config: NewsConfig, *, json_line: Json = False) -> None:
    """Fit a sentiment dictionary to news and prices.

    Run the same command again to resume a run that was stopped: finished work is not repeated.

    Example: `tenfold news fit --news news.parquet --prices prices.parquet --out runs/first`

    Example: `tenfold news fit --news 'news/*.csv' --prices px.csv --exchange XKRX`
    """
    _show_run(fit(config), json_line)


@news.command("demo")
@with_flags_of(DemoConfig)
def news_demo(config: DemoConfig, *, json_line: Json = False) -> None:
    """Make a market with a planted lexicon, fit it, and count the planted words that came back.

    Example: `tenfold news demo --documents 20000 --out demo/news`
    """
    run = run_demo(config)
    _show_run(run, json_line)
    if not json_line:
        truth = run.metrics["truth"]
        print(
            f"planted n-grams found: {truth['found']} of {truth['planted']}; "
            f"false words: {truth['false']} of {truth['words']}"
        )


@news.command("score")
@with_flags_of(ScoreConfig)
def news_score(config: ScoreConfig, *, run: Folder, json_line: Json = False) -> None:
    """Score new texts with a run's dictionary, with each word's share.

    Example: `tenfold news score runs/first --news new.csv --out scores`

    Example: `tenfold news score runs/first --text "profit warning after the close"`
    """
    if config.text is not None:
        _show_explanation(explain_text(run, config.text), json_line)
        return
    result = score_texts(run, config)
    if json_line:
        _print_json(result)
    else:
        print(
            f"scored {result['texts']} texts, {result['rejected']} rejected\n"
            f"scores: {result['scores']}\nwords: {result['words']}"
        )


@news.command("diff")
def news_diff(a: Folder, b: Folder, *, json_line: Json = False) -> None:
    """Compare the dictionaries of two runs.

    Example: `tenfold news diff runs/first runs/second`
    """
    words, summary = diff_dictionaries(a, b)
    changed = words[words["change"] != 0] if len(words) else words
    if json_line:
        _print_json({"a": a, "b": b, "targets": summary, "changed": len(changed)})
        return
    _print_rows(summary)
    _print_rows(changed.head(_WORDS_SHOWN).to_dict("records"))


@news.command("audit")
@with_flags_of(AuditConfig)
def news_audit(config: AuditConfig, *, run: Folder, json_line: Json = False) -> None:
    """Solve a run's problems on every engine present, and compare the certified answers.

    Example: `tenfold news audit runs/first`

    Example: `tenfold news audit runs/first --ratios 3,10 --engines newton,celer`
    """
    result = audit(run, config)
    if json_line:
        _print_json({"run": run, **result})
    else:
        shown = {"coefficient_difference": "difference", "support_overlap": "overlap"}
        _print_rows([{shown.get(k, k): v for k, v in row.items()} for row in result["rows"]])
        print("engines agree" if result["agree"] else "engines DISAGREE")
    if not result["agree"]:
        raise typer.Exit(1)


@bench.command("lasso")
@with_flags_of(LassoBenchConfig)
def show_bench_lasso(config: LassoBenchConfig, *, json_line: Json = False) -> None:
    """Time our engines and their peers on the same paths, each at the same certified gap.

    Every solve runs in a process of its own; its answers are checked in float64 over all columns.

    Example: `tenfold bench lasso`

    Example: `tenfold bench lasso --data stocknet --alphas 43,1 --ratio 30,20 --peers skglm,celer`

    Example: `tenfold bench lasso --synthetic 100000x3000000 --alphas 30 --ratio 20 --runs 1`
    """
    results = bench_lasso(config)
    if json_line:
        _print_json(results)
        return
    _print_rows(cells(results))
    for line in results["missing"].values():
        print(line)
    print(f"table and plot: {config.out}/table.md, {config.out}/plot.html")


@app.command("profile")
@with_flags_of(ProfileConfig)
def show_profile(config: ProfileConfig, *, json_line: Json = False) -> None:
    """Measure what tol and workers x threads trade on this machine, and recommend.

    Example: `tenfold profile`

    Example: `tenfold profile --data stocknet --alphas 43 --ratio 30 --layouts 1x1,2x1,1x2`
    """
    results = profile(config)
    if json_line:
        _print_json(results)
        return
    _print_rows(results["tols"])
    _print_rows(
        [
            {
                "layout": f"{row['workers']} x {row['threads']}",
                "tol": row["tol"],
                "wall s": row["wall_seconds"],
                "CPU s a path": row["cpu_seconds_per_path"],
                "paths/s": row["paths_per_s"],
                "GiB each": row["peak_gib_each"],
                "X'r GB/s": row["screen_gb_s"],
                "copy GB/s": row["copy_gb_s"],
            }
            for row in results["layouts"]
        ]
    )
    if results["warning"]:
        print(f"warning: {results['warning']}")
    print(f"{results['recommendation']}\nresults: {config.out}/profile.json")


@app.command("doctor")
@with_flags_of(ClusterConfig)
def doctor(config: ClusterConfig, *, json_line: Json = False) -> None:
    """Check what this machine and the cluster offer, and whether each promise holds here.

    Example: `tenfold doctor`

    Example: `tenfold doctor --address 10.0.0.5:6379 --json`
    """
    checks = check_machine()
    try:
        with connect(config) as cluster:
            checks += check_cluster(cluster)
    except ConnectError as error:
        checks.append(Check("ray cluster", "wrong", f"{error.where}: {error.what}", error.fix))
    if json_line:
        _print_json({"checks": [asdict(check) for check in checks]})
    else:
        _print_rows([asdict(check) for check in checks])
    if any(check.status == "wrong" for check in checks):
        raise typer.Exit(1)


@app.command("node-resources")
def show_node_resources(*, json_line: Json = False) -> None:
    """Print the resources of this machine as JSON, for `ray start --resources`.

    Example: `ray start --address HEAD:6379 --resources "$(tenfold node-resources)"`
    """
    del json_line  # always JSON: it is made to be passed on
    _print_json(node_resources())


def main() -> None:
    """Run the command line; a fault of the user's ends with 2, one of ours with 1."""
    try:
        app()
    except TenfoldError as error:
        print(f"tenfold: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except SystemExit as end:
        if end.code == _INTERRUPTED:  # what typer makes of Ctrl-C, without a word
            print("tenfold: stopped. Run the same command to resume.", file=sys.stderr)
        raise


def _show_run(run: NewsRun, json_line: bool) -> None:
    report = f"{run.folder.uri}/report.html"
    targets = run.metrics["targets"]
    if json_line:
        headline = {"run": run.folder.uri, "report": report, "targets": targets}
        shown = ("truth", "total_seconds", "peak_gib")
        _print_json(headline | {k: run.metrics[k] for k in shown if k in run.metrics})
        return
    _print_rows(
        [
            {
                "target": name,
                "words": m["nonzeros"],
                "largest gap": f"{m['largest_gap']:.0e}",
                "R2": m["oof_r2"],
                "IC": m["ic"],
                "rank IC": m["rank_ic"],
                "IR": m["daily_ir"],
                "direction": m["directional_accuracy"],
            }
            for name, m in targets.items()
        ]
    )
    print(f"report: {report}\nrun folder: {run.folder.uri}")


def _show_explanation(rows: list[dict[str, Any]], json_line: bool) -> None:
    if json_line:
        _print_json({"scores": rows})
        return
    for row in rows:
        print(f"{row['target']}: {row['score']:+.4f} standard deviations ({row['raw']:+.5f})")
        for word in row["words"][:_WORDS_SHOWN]:
            print(f"  {word['contribution']:+.4f}  {word['ngram']}")


def _print_json(value: Any) -> None:
    print(json.dumps(value), flush=True)


def _print_rows(rows: list[dict[str, Any]]) -> None:
    """Print rows as a table, in full width where nobody's window sets a limit."""
    if not rows:
        print("nothing to show")
        return
    table = Table(*rows[0], box=box.SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        table.add_row(*(escape(_cell(value)) for value in row.values()))
    width = None if sys.stdout.isatty() else _PLAIN_WIDTH
    Console(width=width, highlight=False).print(table)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.3f}" if 1e-3 <= abs(value) < 1e4 or value == 0 else f"{value:.2e}"
    return str(value)
