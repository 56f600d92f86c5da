"""Time against certified gap: a line for each solver, a panel for each work."""

from collections.abc import Mapping
from typing import Any

from plotly.subplots import make_subplots

# Told apart by colour-blind readers; ours stands out by its width.
_COLOURS = ("#1f5fa6", "#d07c2e", "#3a8f5c", "#9a5bb5", "#8b929c", "#c9504a", "#b59a1d")
_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x", "cross", "star")
_FLOOR = 1e-13  # gaps below are the rounding of the check itself


def time_against_gap(results: Mapping[str, Any]) -> str:
    """Return the plot as one HTML page that needs no network.

    Each point is one solve: its CPU seconds, and the largest gap of its answers by our checker. A
    solve that was ended has no gap: an open marker at the gap that was asked for, and its time.
    """
    works = list(dict.fromkeys(row["work"] for row in results["rows"]))
    solvers = list(dict.fromkeys(row["solver"] for row in results["rows"]))
    figure = make_subplots(1, len(works), subplot_titles=works, shared_yaxes=True)
    shown: set[str] = set()
    for row in results["rows"]:
        points = _points(row, results["asked_gap"])
        number = solvers.index(row["solver"])
        colour = _COLOURS[number % len(_COLOURS)]
        symbol = _SYMBOLS[number % len(_SYMBOLS)]
        figure.add_scatter(
            x=[point[0] for point in points],
            y=[point[1] for point in points],
            mode="lines+markers",
            name=row["solver"],
            legendgroup=row["solver"],
            showlegend=row["solver"] not in shown,
            line={"color": colour, "width": 3 if number == 0 else 1.5},
            marker={
                "symbol": [symbol + ("-open" if point[2] else "") for point in points],
                "size": 10,
            },
            text=[point[3] for point in points],
            hovertemplate="%{text}<br>%{x:.3g} CPU s<br>gap %{y:.1e}",
            row=1,
            col=works.index(row["work"]) + 1,
        )
        shown.add(row["solver"])
    figure.add_hline(y=results["asked_gap"], line={"dash": "dot", "color": "#5d6671", "width": 1.5})
    figure.update_xaxes(type="log", title="CPU seconds", dtick=1, minor={"dtick": "D1"})
    figure.update_yaxes(type="log", exponentformat="power", dtick=2)
    figure.update_yaxes(title="largest relative gap, float64 check", col=1)
    problem = results["problem"]
    figure.update_layout(
        template="simple_white",
        title={
            "text": f"{problem['title']}: {problem['rows']:,} × {problem['columns']:,}, "
            f"{problem['nonzeros']:,} non-zeros"
            f"<br><sup>left and low is better; dotted: the gap asked for; open: ended before an "
            f"answer; threads of each: {results['threads']}</sup>"
        },
        width=max(720, 120 + 430 * len(works)),
        height=560,
        legend={"title": "solver"},
    )
    return str(figure.to_html(include_plotlyjs=True, full_html=True))


def _points(row: Mapping[str, Any], asked: float) -> list[tuple[float, float, bool, str]]:
    """Return (CPU seconds, gap, whether it was ended, words) of each try, the loosest first."""
    points = []
    for found in sorted(row["tries"], key=lambda found: -found["tol"]):
        if found["cpu_seconds"] <= 0:
            continue
        ended = found["gap"] is None
        gap = asked if ended else max(found["gap"], _FLOOR)
        text = f"{row['solver']}, tol {found['tol']:.1e}"
        points.append((found["cpu_seconds"], gap, ended, text + (" " + found["reason"]).rstrip()))
    return points
