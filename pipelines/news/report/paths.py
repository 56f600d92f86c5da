"""The report's plots along the alpha path: validation error, weights, certificates."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots
from sklearn.isotonic import isotonic_regression

from pipelines.report_page import BLUE, GREY, ORANGE, RED, finish
from pipelines.report_text import hover, label

ALL_ROWS = -1  # fold number of the fit on all rows
TOP_PATHS = 16
CYCLE = (BLUE, ORANGE, "#3d9a7b", "#a06cb8", RED, "#9a8a3a", "#4aa3b8", "#7d86d1")
FLOOR = 1e-17  # a gap of exactly zero has no place on a log axis


def validation_curve(path: pd.DataFrame, chosen: float | None) -> go.Figure | None:
    """Draw validation error against alpha: as it is, and against each fold's largest alpha.

    ``path`` holds one target. Folds differ in how noisy their sessions are; the right panel takes
    that out, so that what the words gain can be seen.
    """
    folds = path[(path["fold"] != ALL_ROWS) & path["validation_mse"].notna()]
    if folds.empty:
        return None
    errors = folds.pivot_table(index="alpha", columns="fold", values="validation_mse").dropna()
    counts = folds.groupby("alpha")["nonzeros"].mean().reindex(errors.index)
    if errors.empty:
        return None
    relative = 100.0 * (errors / errors.iloc[-1] - 1.0)
    figure = make_subplots(1, 2, horizontal_spacing=0.16)
    for column, values in ((1, errors), (2, relative)):
        _fold_lines(figure, values, folds, column)
        _mean_band(figure, values, counts, column)
    lowest, one_error = simplest_alphas(errors)
    marks = {"lowest mean error": lowest, "one standard error": one_error}
    _alpha_marks(figure, marks, chosen)
    _alpha_axis(figure, errors.index)
    figure.update_yaxes(title="validation MSE (target s.d.²)", col=1)
    figure.update_yaxes(title="change from the largest α (%)", zeroline=True, col=2)
    return finish(figure, height=400)


def simplest_alphas(errors: pd.DataFrame) -> tuple[float, float]:
    """Return the alpha of the lowest mean error and the largest within one standard error of it.

    ``errors`` has a row per alpha and a column per fold. On ties the larger alpha wins.
    """
    falling = errors.sort_index(ascending=False)
    mean = falling.mean(axis=1)
    spread = falling.sem(axis=1).fillna(0.0)
    lowest = mean.idxmin()
    within = mean[mean <= mean[lowest] + spread[lowest]]
    return float(lowest), float(within.index[0])


def _fold_lines(figure: go.Figure, values: pd.DataFrame, folds: pd.DataFrame, column: int) -> None:
    nonzeros = folds.pivot_table(index="alpha", columns="fold", values="nonzeros")
    for order, fold in enumerate(values.columns):
        figure.add_scatter(
            x=values.index.to_numpy(),
            y=values[fold].to_numpy(),
            customdata=nonzeros[fold].reindex(values.index).to_numpy(),
            mode="lines",
            line={"color": GREY, "width": 1},
            opacity=0.55,
            name="folds",
            legendgroup="folds",
            showlegend=column == 1 and order == 0,
            hovertemplate=f"fold {int(fold) + 1}: %{{y:.5g}}, %{{customdata:,}} words"
            "<extra></extra>",
            row=1,
            col=column,
        )


def _mean_band(figure: go.Figure, values: pd.DataFrame, counts: pd.Series, column: int) -> None:
    x, mean = values.index.to_numpy(), values.mean(axis=1)
    error = values.sem(axis=1).fillna(0.0)
    figure.add_scatter(
        x=np.concatenate([x, x[::-1]]),
        y=np.concatenate([mean + error, (mean - error)[::-1]]),
        fill="toself",
        fillcolor=BLUE,
        opacity=0.18,
        line={"width": 0},
        hoverinfo="skip",
        name="± one standard error",
        legendgroup="error",
        showlegend=column == 1,
        row=1,
        col=column,
    )
    figure.add_scatter(
        x=x,
        y=mean.to_numpy(),
        customdata=np.column_stack([error.to_numpy(), counts.to_numpy()]),
        mode="lines+markers",
        line={"color": BLUE, "width": 2},
        marker={"size": 4},
        name="mean of the folds",
        legendgroup="mean",
        showlegend=column == 1,
        hovertemplate="<b>mean %{y:.5g} ± %{customdata[0]:.2g}</b><br>α = %{x:.4g}<br>"
        "%{customdata[1]:,.0f} words on average<extra></extra>",
        row=1,
        col=column,
    )


def _alpha_marks(figure: go.Figure, marks: Mapping[str, float], chosen: float | None) -> None:
    """Draw vertical lines in both panels; their names and values go to the legend."""
    drawn = []
    if chosen is not None and chosen > 0:
        same = [name for name, alpha in marks.items() if np.isclose(alpha, chosen, rtol=1e-6)]
        note = f" ({', '.join(same)})" if same else ""
        drawn.append((f"chosen α = {chosen:.4g}{note}", chosen, "solid", ORANGE))
        marks = {name: alpha for name, alpha in marks.items() if name not in same}
    dashes = {"lowest mean error": "dot", "one standard error": "dash"}
    drawn += [(f"{n}: α = {a:.4g}", a, dashes[n], GREY) for n, a in marks.items()]
    for name, alpha, dash, color in drawn:
        line = {"color": color, "dash": dash, "width": 1.5}
        figure.add_scatter(x=[None], y=[None], mode="lines", line=line, name=name, row=1, col=1)
        for axis in ("", "2"):
            figure.add_shape(
                type="line",
                x0=alpha,
                x1=alpha,
                y0=0,
                y1=1,
                xref=f"x{axis}",
                yref=f"y{axis} domain",
                line=line,
                layer="below",
            )


def coefficient_path(
    coefficients: pd.DataFrame, alphas: npt.ArrayLike, chosen: float | None
) -> go.Figure | None:
    """Draw the weights of one target's strongest n-grams as alpha falls, labelled at its end.

    ``coefficients`` (ngram, alpha, coef) leaves zeros out; ``alphas`` are all that were solved.
    """
    if coefficients.empty:
        return None
    table = coefficients.pivot_table(index="alpha", columns="ngram", values="coef", aggfunc="first")
    table = table.reindex(np.union1d(table.index, np.asarray(alphas, dtype=float))).fillna(0.0)
    strongest = table.abs().max().sort_values(ascending=False, kind="stable").index[:TOP_PATHS]
    table = table[strongest]
    figure = go.Figure()
    ends = table.iloc[0].sort_values(kind="stable")
    heights = _spread_out(ends.to_numpy(), float(table.max().max() - table.min().min()))
    height_of = dict(zip(ends.index, heights, strict=True))
    start = float(np.log10(table.index[0]))
    for number, ngram in enumerate(strongest):
        color = CYCLE[number % len(CYCLE)]
        figure.add_scatter(
            x=table.index.to_numpy(),
            y=table[ngram].to_numpy(),
            mode="lines",
            line={"color": color, "width": 1.5},
            showlegend=False,
            text=hover(str(ngram)),
            hovertemplate="<b>%{text}</b><br>weight %{y:.4g} at α = %{x:.4g}<extra></extra>",
        )
        figure.add_annotation(
            x=start,
            y=float(ends[ngram]),
            ax=18,
            ay=height_of[ngram],
            axref="pixel",
            ayref="y",
            xanchor="left",
            text=label(str(ngram), 26),
            font={"color": color, "size": 11},
            arrowcolor=color,
            arrowwidth=0.7,
            arrowhead=0,
        )
    if chosen is not None and chosen > 0:
        figure.add_shape(
            type="line",
            x0=chosen,
            x1=chosen,
            y0=0,
            y1=1,
            yref="y domain",
            line={"color": ORANGE, "width": 1.5},
            layer="below",
        )
    _alpha_axis(figure, table.index)
    figure.update_yaxes(title="weight (target s.d. per unit)", zeroline=True)
    figure.update_layout(margin={"r": 210})
    return finish(figure, height=460)


def _spread_out(values: npt.NDArray[np.float64], span: float) -> npt.NDArray[np.float64]:
    """Move rising ``values`` as little as puts 1/20 of ``span`` at least between them."""
    room = np.arange(values.size) * span / 20
    return isotonic_regression(values - room) + room


def certificate(path: pd.DataFrame, tol: float | None) -> go.Figure | None:
    """Draw the duality gap of every fit of one target against the tolerance."""
    path = path[path["gap"].notna()]
    if path.empty:
        return None
    figure = go.Figure()
    numbers = [int(fold) for fold in sorted(path["fold"].unique()) if fold != ALL_ROWS]
    for fold in [*numbers, ALL_ROWS]:
        fits = path[path["fold"] == fold].sort_values("alpha")
        if fits.empty:
            continue
        whole = fold == ALL_ROWS
        figure.add_scatter(
            x=fits["alpha"].to_numpy(),
            y=fits["gap"].clip(lower=FLOOR).to_numpy(),
            customdata=fits[["gap", "nonzeros", "n_iter", "seconds"]].to_numpy(dtype=float),
            mode="lines+markers",
            line={"color": BLUE if whole else GREY, "width": 2 if whole else 1},
            marker={"size": 4 if whole else 3},
            opacity=1.0 if whole else 0.6,
            name="all rows" if whole else "folds",
            legendgroup=str(whole),
            showlegend=whole or fold == numbers[0],
            hovertemplate=("<b>all rows</b>" if whole else f"<b>fold {fold + 1}</b>")
            + ", α = %{x:.4g}<br>gap %{customdata[0]:.2e}<br>%{customdata[1]:,.0f} words, "
            "%{customdata[2]:,.0f} iterations, %{customdata[3]:.3f} s<extra></extra>",
        )
    if tol is not None and tol > 0:
        ends = [float(path["alpha"].min()), float(path["alpha"].max())]
        line = {"color": RED, "dash": "dash", "width": 1.5}
        figure.add_scatter(
            x=ends,
            y=[tol, tol],
            mode="lines",
            line=line,
            name=f"tolerance {tol:g}",
            hoverinfo="skip",
        )
    _alpha_axis(figure, path["alpha"])
    figure.update_yaxes(title="relative duality gap", type="log", exponentformat="power", dtick=2)
    return finish(figure, height=340)


def _alpha_axis(figure: go.Figure, alphas: npt.ArrayLike) -> None:
    """Make x logarithmic with alpha falling to the right: more words on the right."""
    logs = np.log10(np.asarray(alphas, dtype=float))
    margin = 0.03 * max(float(np.ptp(logs)), 0.3)
    figure.update_xaxes(
        title="penalty α (log scale, falling)",
        type="log",
        range=[float(logs.max()) + margin, float(logs.min()) - margin],
        dtick="D2",
        minorloglabels="complete",
        exponentformat="none",
    )
