"""What all reports share: one HTML file that needs no network and runs no script but its own.

`report_page.html` is the frame that a job's own template extends, `report_macros.html` its macros.
Colours of text and grid in plots are left to the page, which knows light from dark.
"""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import plotly.graph_objects as go
from markupsafe import Markup
from plotly.io.json import to_json_plotly
from plotly.offline import get_plotlyjs

from pipelines.report_text import (
    cut,
    visible,
    write_bytes,
    write_correlation,
    write_count,
    write_duration,
    write_gap,
    write_number,
    write_percent,
    write_share,
    write_weight,
)

# Mid tones, told apart by colour-blind readers, on white and on near-black alike.
BLUE, ORANGE, GREY, RED = "#3f7fc4", "#d07c2e", "#8b929c", "#c9504a"

# Longer texts of the configuration are cut.
OPTION_CHARACTERS = 600


def render_page(template: Path, **values: Any) -> str:
    """Return the report that ``template`` makes of ``values``; it extends `report_page.html`."""
    return (
        _environment(template.parent)
        .get_template(template.name)
        .render(
            plotly_js=Markup(get_plotlyjs()),  # noqa: S704 - the library's own code
            **values,
        )
    )


def finish(figure: go.Figure, height: int) -> go.Figure:
    """Drop plotly's own template and leave room for the legend above the plot."""
    figure.update_layout(
        template={},
        height=height,
        margin={"t": 56, "b": 52, "l": 70} | ({} if figure.layout.margin.r else {"r": 16}),
        legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        hovermode="closest",
    )
    figure.update_xaxes(automargin=True, title_standoff=8)
    figure.update_yaxes(automargin=True, title_standoff=12)
    return figure


def figure_json(
    figure: go.Figure | None, frames: Sequence[Mapping[str, Any]] = ()
) -> dict[str, Any] | None:
    """Return a figure as JSON that is safe in a script element, and its height in pixels.

    Parameters
    ----------
    figure : Figure or None
    frames : sequence of dict
        Of an animation, as plotly.js takes them. They are not checked: plotly takes a second for
        what holds a hundred of them.
    """
    if figure is None:
        return None
    drawn = figure.to_dict()
    drawn["layout"].pop("template", None)  # the page has its own
    text = str(to_json_plotly({**drawn, "frames": frames} if frames else drawn))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    json_text = Markup(text)  # noqa: S704 - JSON without a character that could end the element
    return {"height": int(figure.layout.height), "json": json_text}


def flat_config(config: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return the configuration as (stage, [(option, value)]), nested options joined by dots."""
    loose, stages = [], []
    for stage, options in config.items():
        if isinstance(options, Mapping):
            stages.append((visible(stage), [*_flat_options(options, "")]))
        else:
            loose.append((visible(stage), _option_text(options)))
    return [*stages, *([("run", loose)] if loose else [])]


def _flat_options(options: Mapping[str, Any], prefix: str) -> list[tuple[str, str]]:
    rows = []
    for name, value in options.items():
        if isinstance(value, Mapping) and value:
            rows += _flat_options(value, f"{prefix}{name}.")
        else:
            rows.append((visible(f"{prefix}{name}"), _option_text(value)))
    return rows


def _option_text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return cut(text, OPTION_CHARACTERS)


def _script_hash(script: str) -> str:
    """Return the source expression that lets a browser run exactly this inline script."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


@cache
def _environment(folder: Path) -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([folder, Path(__file__).parent]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "count": write_count,
        "number": write_number,
        "percent": write_percent,
        "share": write_share,
        "weight": write_weight,
        "gap": write_gap,
        "correlation": write_correlation,
        "bytes": write_bytes,
        "duration": write_duration,
        "cut": lambda text, characters: cut(str(text), characters),
        "visible": lambda text: visible(str(text)),
        "script_hash": _script_hash,
    }
    return environment
