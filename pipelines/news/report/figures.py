"""The report's plots of words, sessions and stages."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from pipelines.report_page import BLUE, GREY, ORANGE, finish
from pipelines.report_text import hover, label

ROLLING_SESSIONS = 21
TOP_WORDS = 40


def word_bars(words: pd.DataFrame, aliases_are: str) -> go.Figure | None:
    """Draw the strongest positive and negative n-grams of one target as bars."""
    if words.empty:
        return None
    ranked = words.sort_values("coef", key=lambda c: c.abs(), ascending=False, kind="stable")
    half = TOP_WORDS // 2
    positive, negative = ranked[ranked["coef"] > 0], ranked[ranked["coef"] < 0]
    # A side with few words leaves its room to the other.
    n_positive = min(len(positive), max(half, TOP_WORDS - len(negative)))
    shown = pd.concat([positive.head(n_positive), negative.head(TOP_WORDS - n_positive)])
    shown = shown.sort_values("coef", kind="stable")
    details = [
        [hover(word.ngram), f"{word.df:,}", _aliases_line(word.aliases, aliases_are)]
        for word in shown.itertuples()
    ]
    figure = go.Figure(
        go.Bar(
            x=shown["coef"].to_numpy(),
            y=np.arange(len(shown)),
            orientation="h",
            marker={"color": np.where(shown["coef"] > 0, BLUE, ORANGE).tolist(), "line_width": 0},
            customdata=details,
            hovertemplate="<b>%{customdata[0]}</b><br>weight %{x:.4g}<br>in %{customdata[1]} "
            "observations%{customdata[2]}<extra></extra>",
        )
    )
    figure.update_yaxes(
        tickvals=np.arange(len(shown)).tolist(),
        ticktext=[label(ngram) for ngram in shown["ngram"]],
        tickfont={"size": 11},
        showgrid=False,
        range=[-0.7, len(shown) - 0.3],
    )
    figure.update_xaxes(title="weight (target s.d. per unit)", zeroline=True)
    figure.update_layout(bargap=0.3)
    return finish(figure, height=90 + 17 * max(len(shown), 3))


def _aliases_line(aliases: Sequence[str] | None, aliases_are: str) -> str:
    names = [] if aliases is None else list(aliases)
    if not names:
        return ""
    more = f"<br>and {len(names) - 5:,} more" if len(names) > 5 else ""
    return f"<br>{aliases_are}:<br>" + "<br>".join(label(n, 60) for n in names[:5]) + more


def correlation_over_time(daily: pd.DataFrame) -> go.Figure | None:
    """Draw one target's IC per session with its rolling mean, and its running sum below."""
    daily = daily[daily["ic"].notna()].sort_values("session")
    if daily.empty:
        return None
    dates = daily["session"].astype(str).to_numpy(dtype=str)
    figure = make_subplots(2, 1, shared_xaxes=True, row_heights=[0.62, 0.38], vertical_spacing=0.06)
    figure.add_scatter(
        x=dates,
        y=daily["ic"].to_numpy(dtype=np.float32),
        mode="markers",
        marker={"color": GREY, "size": 4, "opacity": 0.55},
        name="session",
        customdata=daily["n"].to_numpy(dtype=np.int32),
        hovertemplate="%{x}<br>IC %{y:.3f} over %{customdata} tickers<extra></extra>",
    )
    rolling = daily["ic"].rolling(ROLLING_SESSIONS).mean()
    figure.add_scatter(
        x=dates,
        y=rolling.to_numpy(dtype=np.float32),
        mode="lines",
        line={"color": BLUE, "width": 2},
        name=f"mean of {ROLLING_SESSIONS} sessions",
        hovertemplate=f"%{{x}}<br>{ROLLING_SESSIONS}-session mean %{{y:.3f}}<extra></extra>",
    )
    for column, name, color in (("ic", "IC", BLUE), ("rank_ic", "rank IC", ORANGE)):
        figure.add_scatter(
            x=dates,
            y=daily[column].fillna(0.0).cumsum().to_numpy(dtype=np.float32),
            mode="lines",
            line={"color": color, "width": 1.5},
            name=f"running sum of {name}",
            hovertemplate=f"%{{x}}<br>sum of {name} %{{y:.2f}}<extra></extra>",
            row=2,
            col=1,
        )
    figure.update_yaxes(title="IC of the session", zeroline=True, row=1)
    figure.update_yaxes(title="running sum", zeroline=True, row=2)
    figure.update_xaxes(title="session", row=2)
    return finish(figure, height=430)


def stage_costs(stages: Sequence[Mapping[str, Any]]) -> go.Figure | None:
    """Draw wall and CPU seconds, and peak memory, of each stage."""
    if not stages:
        return None
    names = [
        label(str(stage.get("name"))) + (" (reused)" if stage.get("reused") else "")
        for stage in stages
    ]
    positions = np.arange(len(stages))
    figure = make_subplots(1, 2, shared_yaxes=True, column_widths=[0.64, 0.36])
    bars = (
        ("wall", "seconds", "s", BLUE, 1),
        ("CPU, all processes", "cpu_seconds", "s", GREY, 1),
        ("peak memory", "peak_gib", "GiB", ORANGE, 2),
    )
    for name, key, unit, color, column in bars:
        figure.add_bar(
            x=[stage.get(key) for stage in stages],
            y=positions,
            orientation="h",
            marker={"color": color, "line_width": 0},
            name=name,
            customdata=names,
            hovertemplate=f"%{{customdata}}<br>{name}: %{{x:,.2f}} {unit}<extra></extra>",
            row=1,
            col=column,
        )
    figure.update_yaxes(
        tickvals=positions.tolist(), range=[len(stages) - 0.4, -0.6], showgrid=False
    )
    figure.update_yaxes(ticktext=names, col=1)
    figure.update_xaxes(title="time (s)", rangemode="tozero", col=1)
    figure.update_xaxes(title="peak memory (GiB)", rangemode="tozero", col=2)
    figure.update_layout(barmode="group", bargap=0.35)
    return finish(figure, height=110 + 34 * len(stages))
