"""`tenfold news`: the commands of the news job."""

from typing import Annotated, Any

import typer

from pipelines.flags import with_flags_of
from pipelines.news.audit import AuditConfig, audit
from pipelines.news.config import NewsConfig
from pipelines.news.demo import DemoConfig, run_demo
from pipelines.news.diff import diff_dictionaries
from pipelines.news.run import NewsRun, fit
from pipelines.news.score import ScoreConfig, explain_text, score_texts
from pipelines.terminal import Json, group, print_json, print_rows

_WORDS_SHOWN = 15

app = group("News texts and prices to a sentiment dictionary.")

Folder = Annotated[str, typer.Argument(help="Run folder that fit printed.", show_default=False)]


@app.command("fit")
@with_flags_of(NewsConfig)
def news_fit(config: NewsConfig, *, json_line: Json = False) -> None:
    """Fit a sentiment dictionary to news and prices.

    Run the same command again to resume a run that was stopped: finished work is not repeated.

    Example: `tenfold news fit --news news.parquet --prices prices.parquet --out runs/first`

    Example: `tenfold news fit --news 'news/*.csv' --prices px.csv --exchange XKRX`
    """
    _show_run(fit(config), json_line)


@app.command("demo")
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


@app.command("score")
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
        print_json(result)
    else:
        print(
            f"scored {result['texts']} texts, {result['rejected']} rejected\n"
            f"scores: {result['scores']}\nwords: {result['words']}"
        )


@app.command("diff")
def news_diff(a: Folder, b: Folder, *, json_line: Json = False) -> None:
    """Compare the dictionaries of two runs.

    Example: `tenfold news diff runs/first runs/second`
    """
    words, summary = diff_dictionaries(a, b)
    changed = words[words["change"] != 0] if len(words) else words
    if json_line:
        print_json({"a": a, "b": b, "targets": summary, "changed": len(changed)})
        return
    print_rows(summary)
    print_rows(changed.head(_WORDS_SHOWN).to_dict("records"))


@app.command("audit")
@with_flags_of(AuditConfig)
def news_audit(config: AuditConfig, *, run: Folder, json_line: Json = False) -> None:
    """Solve a run's problems on every engine present, and compare the certified answers.

    Example: `tenfold news audit runs/first`

    Example: `tenfold news audit runs/first --ratios 3,10 --engines newton,celer`
    """
    result = audit(run, config)
    if json_line:
        print_json({"run": run, **result})
    else:
        shown = {"coefficient_difference": "difference", "support_overlap": "overlap"}
        print_rows([{shown.get(k, k): v for k, v in row.items()} for row in result["rows"]])
        print("engines agree" if result["agree"] else "engines DISAGREE")
    if not result["agree"]:
        raise typer.Exit(1)


def _show_run(run: NewsRun, json_line: bool) -> None:
    report = f"{run.folder.uri}/report.html"
    targets = run.metrics["targets"]
    if json_line:
        headline = {"run": run.folder.uri, "report": report, "targets": targets}
        shown = ("truth", "total_seconds", "peak_gib")
        print_json(headline | {k: run.metrics[k] for k in shown if k in run.metrics})
        return
    print_rows(
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
        print_json({"scores": rows})
        return
    for row in rows:
        print(f"{row['target']}: {row['score']:+.4f} standard deviations ({row['raw']:+.5f})")
        for word in row["words"][:_WORDS_SHOWN]:
            print(f"  {word['contribution']:+.4f}  {word['ngram']}")
