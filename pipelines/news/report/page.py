"""The report of a news run: one HTML file that needs no network and runs no script but its own."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from cluster.errors import InputError
from cluster.storage import Store
from pipelines.news.report.figures import correlation_over_time, stage_costs, word_bars
from pipelines.news.report.paths import ALL_ROWS, certificate, coefficient_path, validation_curve
from pipelines.report_page import figure_json, flat_config, render_page
from pipelines.report_text import (
    cut,
    is_number,
    visible,
    write_correlation,
    write_count,
    write_gap,
    write_number,
    write_percent,
    write_ratio,
)

REPORT = "report.html"
TABLE_ROWS = 200
ALIASES_LISTED = 4
# Longer texts are cut in the tables: an n-gram, one of its aliases.
NGRAM_CHARACTERS, ALIAS_CHARACTERS = 240, 80

_COLUMNS = {
    "path.parquet": "target fold alpha gap nonzeros n_iter seconds train_mse validation_mse",
    "coef_path.parquet": "target ngram alpha coef",
    "dictionary.parquet": "target ngram coef df aliases stability gap",
    "daily_ic.parquet": "target session ic rank_ic n",
}
_OPTIONAL = ("coef_path.parquet", "daily_ic.parquet")


def write_report(run: Store) -> None:
    """Write ``report.html`` into the run folder."""
    run.write_bytes(REPORT, render_report(run).encode())


def render_report(run: Store) -> str:
    """Return the report of the run in ``run`` as one self-contained HTML document.

    The same run folder gives the same text.

    Raises
    ------
    InputError
        When the folder lacks a file that every run writes, or one cannot be understood.
    """
    metrics, config = _read_json(run, "metrics.json"), _read_json(run, "config.json")
    truth = _read_json(run, "truth.json") if run.exists("truth.json") else None
    tables = {name.partition(".")[0]: _read_table(run, name) for name in _COLUMNS}
    hashed = bool(_find(config, "hash_bits"))
    targets = [
        _target_view(number, name, values or {}, tables, metrics.get("tol"), hashed)
        for number, (name, values) in enumerate((metrics.get("targets") or {}).items())
    ]
    return render_page(
        Path(__file__).with_name("report.html"),
        title=visible("/".join(run.path.split("/")[-2:])),
        proof=_proof(tables["path"], metrics),
        n_words=len(tables["dictionary"]),
        n_ngrams=tables["dictionary"]["ngram"].nunique(),
        metrics=metrics,
        columns=METRICS,
        targets=targets,
        truth=truth,
        hashed=hashed,
        joint=bool(_find(config, "multitask")),
        weighting=_find(config, "weighting"),
        stages=figure_json(stage_costs(metrics.get("stages") or [])),
        config=flat_config(config),
    )


@dataclass(frozen=True)
class Metric:
    """A column of the table of targets: key in ``metrics.json``, heading, filter, meaning."""

    key: str
    heading: str
    write: Callable[[Any], str]
    meaning: str


METRICS = (
    Metric("nonzeros", "words", write_count, "N-grams with a weight other than zero."),
    Metric("alpha", "α", write_number, "Penalty chosen by cross-validation; more is sparser."),
    Metric(
        "rule", "rule", str, "min: lowest validation error; 1se: sparsest within one s.e. of it."
    ),
    Metric(
        "largest_gap",
        "largest gap",
        write_gap,
        "Largest relative duality gap over every fold and α: how far any fit can be from its "
        "optimum, in units of the target's variance.",
    ),
    Metric(
        "oof_r2",
        "R² out of fold",
        write_percent,
        "1 − squared error / squared error of the training mean, on rows the model had not seen. "
        "Negative: worse than the mean.",
    ),
    Metric(
        "ic",
        "IC",
        write_correlation,
        "Information coefficient: Pearson correlation, across the tickers of a session, of mean "
        "prediction with mean target; averaged over sessions.",
    ),
    Metric("rank_ic", "rank IC", write_correlation, "The same with Spearman's rank correlation."),
    Metric(
        "daily_ir",
        "IR",
        write_ratio,
        "Information ratio: mean of the session ICs / their standard deviation × √252. "
        "Before costs; not a backtest.",
    ),
    Metric(
        "pooled_ic",
        "pooled IC",
        write_correlation,
        "Pearson correlation over all out-of-fold rows at once, across tickers and sessions alike.",
    ),
    Metric(
        "directional_accuracy",
        "direction",
        write_percent,
        "Share of out-of-fold rows on the predicted side of the training mean; rows for which the "
        "words say nothing do not count.",
    ),
    Metric("n_rows", "rows", write_count, "Observations with this target."),
    Metric("n_out_of_fold", "out of fold", write_count, "Those predicted by a fit without them."),
)


def _target_view(
    number: int,
    name: str,
    values: Mapping[str, Any],
    tables: Mapping[str, pd.DataFrame],
    tol: float | None,
    hashed: bool,
) -> dict[str, Any]:
    """Gather what the template shows of one target."""
    path, coefficients, words, daily = (
        tables[table][tables[table]["target"] == name]
        for table in ("path", "coef_path", "dictionary", "daily_ic")
    )
    alpha = values.get("alpha")
    all_rows = path.loc[path["fold"] == ALL_ROWS, "alpha"]
    ranked = words.sort_values("coef", key=lambda c: c.abs(), ascending=False, kind="stable")
    return {
        "id": f"target-{number}",
        "name": visible(name),
        "metrics": values,
        "share_of_max": _ratio(alpha, values.get("alpha_max")),
        "cells": [metric.write(_or_dash(values.get(metric.key))) for metric in METRICS],
        "n_words": len(words),
        "words": [_word_view(word) for word in ranked.head(TABLE_ROWS).itertuples()],
        "has_stability": bool(words["stability"].notna().any()),
        "validation": figure_json(validation_curve(path, alpha)),
        "path": figure_json(coefficient_path(coefficients, all_rows, alpha)),
        "bars": figure_json(word_bars(words, "collides with" if hashed else "also")),
        "daily": figure_json(correlation_over_time(daily)),
        "certificate": figure_json(certificate(path, tol)),
    }


def _word_view(word: Any) -> dict[str, Any]:
    aliases = [] if word.aliases is None else list(word.aliases)
    return {
        "ngram": cut(word.ngram, NGRAM_CHARACTERS),
        "coef": word.coef,
        "df": word.df,
        "stability": word.stability,
        "aliases": [cut(alias, ALIAS_CHARACTERS) for alias in aliases[:ALIASES_LISTED]],
        "more": max(len(aliases) - ALIASES_LISTED, 0),
    }


def _proof(path: pd.DataFrame, metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Sum up the certificates: every fit of every target, fold and alpha."""
    said = [(values or {}).get("largest_gap") for values in (metrics.get("targets") or {}).values()]
    gaps = [float(gap) for gap in said if is_number(gap)]
    gaps += path["gap"].dropna().tolist()
    tol = metrics.get("tol")
    above = (path["gap"] > tol).sum() if tol else 0
    return {
        "fits": len(path),
        "largest": max(gaps, default=None),
        "missed": int(above + path["gap"].isna().sum()),
        "tol": tol,
    }


def _find(config: Any, name: str) -> Any:
    """Return the first option called ``name`` at any depth, None when there is none."""
    if not isinstance(config, Mapping):
        return None
    if name in config:
        return config[name]
    found = (_find(value, name) for value in config.values())
    return next((value for value in found if value is not None), None)


def _read_json(run: Store, name: str) -> dict[str, Any]:
    try:
        value = run.read_json(name)
    except FileNotFoundError as error:
        raise _not_a_run(run, f"{name} is missing") from error
    except ValueError as error:
        raise _not_a_run(run, f"{name} is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise _not_a_run(run, f"{name} holds no object")
    return value


def _read_table(run: Store, name: str) -> pd.DataFrame:
    columns = _COLUMNS[name].split()
    if name in _OPTIONAL and not run.exists(name):
        return pd.DataFrame({column: [] for column in columns})
    try:
        table: pd.DataFrame = run.read_table(name, columns).to_pandas()
    except (FileNotFoundError, pa.ArrowException) as error:
        raise _not_a_run(run, f"{name}: {str(error).splitlines()[0]}") from error
    missing = [column for column in columns if column not in table]
    if missing:
        raise _not_a_run(run, f"{name} lacks column {missing[0]!r}")
    return table


def _not_a_run(run: Store, got: str) -> InputError:
    return InputError(
        run.uri, "run folder", "the files of a finished news run", got, "Run news fit again."
    )


def _or_dash(value: Any) -> Any:
    return "–" if value is None else value


def _ratio(part: Any, whole: Any) -> float | None:
    return float(part) / float(whole) if is_number(part) and is_number(whole) and whole else None
