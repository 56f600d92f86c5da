"""The quality report's plots of single panels: frame by frame, and as frame × place maps."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from pipelines.fpcb.features.extraction import FeatureConfig, Features, extract
from pipelines.fpcb.features.kinematics import derivatives
from pipelines.fpcb.features.places import place_means
from pipelines.fpcb.features.table import names
from pipelines.fpcb.panels import PanelBatch
from pipelines.fpcb.quality.figures import unit_of, words
from pipelines.report_page import BLUE, GREY, ORANGE, RED, finish

Singles = npt.NDArray[np.float32]

MAPS = ("velocity", "acceleration", "curvature_excess", "curvature_change")
MOST_STEPS, MOST_POINTS = 120, 400  # drawn of a panel that has more
_ARROWS = 16
_VELOCITY_S, _ACCELERATION_S2 = 0.15, 0.02  # px of arrow for a px/s, a px/s²
_TEAL, _PURPLE = "#3d9a7b", "#a06cb8"
FOUND_MARK = {
    "symbol": "diamond",
    "size": 9,
    "color": "#7d4fa8",
    "line": {"width": 1.5, "color": "#ffffff"},
}
_GHOSTS = 8
_DIVERGING = [[0.0, "#2f6db3"], [0.5, "#f4f4f2"], [1.0, "#c4662a"]]


@dataclass(frozen=True, eq=False, kw_only=True)
class Picture:
    """A panel to look at, and the good panel of the same number where it can be made.

    ``crack_frame`` (when it cracks or jolts), ``damage_frame`` (from when its shape shows it) and
    ``crack_place`` (share of the length) are None where there is none, or it is not known;
    ``found_frame`` and ``found_place`` where no detector called the panel cracked.
    """

    scenario: str
    title: str
    bad: bool
    panel: PanelBatch
    twin: PanelBatch | None
    crack_frame: int | None
    damage_frame: int | None
    crack_place: float | None
    config: FeatureConfig
    found_frame: int | None = None
    found_place: float | None = None
    most_points: int = MOST_POINTS
    arrows: bool = True

    @property
    def seconds(self) -> npt.NDArray[np.float64]:
        """Time of each frame."""
        return np.asarray(np.arange(self.panel.n_frames) / self.panel.fps[0])

    @cached_property
    def curve(self) -> npt.NDArray[np.int16]:
        """Points of the panel (2, n_frames, k), px."""
        return _thinned(self.panel, self.most_points)

    @cached_property
    def twin_curve(self) -> npt.NDArray[np.int16] | None:
        """Points of the good panel, beside a cracked one."""
        return None if self.twin is None else _thinned(self.twin, self.most_points)

    @cached_property
    def features(self) -> Features:
        """Features of the panel."""
        return extract(self.panel, self.config)

    @cached_property
    def twin_features(self) -> Features | None:
        """Features of the good panel of the same number."""
        return None if self.twin is None else extract(self.twin, self.config)

    @cached_property
    def vectors(self) -> tuple[Singles, Singles, Singles]:
        """Places (2, n_frames, k), px in the image, their velocity and acceleration, px/s(²)."""
        batch = self.panel
        means = place_means(batch.points, batch.n_points, _ARROWS)
        fps = batch.fps.astype(np.float32)
        velocity, acceleration = derivatives(means, fps, self.config.time_window_frames)
        origin = batch.points[0, :, 0, 0].astype(np.float32)[:, None, None]
        return means[:, 0] + origin, velocity[:, 0], acceleration[:, 0]

    @property
    def color(self) -> str:
        """That of cracked panels, or of good ones."""
        return ORANGE if self.bad else BLUE


def stepped_panel(picture: Picture) -> tuple[go.Figure, list[dict[str, Any]]]:
    """Draw a panel frame by frame, with its bend and its kink over time beside it.

    Returns
    -------
    figure : Figure
        Open where there is most to see: as it cracks, or midway.
    frames : list of dict
        What moves, frame by frame, as plotly.js takes it.
    """
    n_frames = picture.panel.n_frames
    crack = picture.crack_frame
    seen = min(n_frames // 2 if crack is None else crack + 1, n_frames - 1)
    stills = {*range(0, n_frames, -(-n_frames // MOST_STEPS)), seen, n_frames - 1}
    shown = sorted(stills if crack is None else stills | {crack})
    figure = make_subplots(
        2,
        2,
        column_widths=[0.56, 0.44],
        specs=[[{"rowspan": 2}, {}], [None, {}]],
        horizontal_spacing=0.09,
        vertical_spacing=0.12,
    )
    for at in np.linspace(0, n_frames - 1, _GHOSTS).astype(int):
        ghost = _line(GREY, 1, "", opacity=0.35, hoverinfo="skip", showlegend=False)
        figure.add_trace(ghost.update(_at(picture.curve[:, at])), 1, 1)
    _draw_series(figure, picture)
    still = len(figure.data)
    ends = _ends(figure)
    board = _moving_traces(picture)
    for trace, points in zip(board, _moving(picture, seen), strict=True):
        figure.add_trace(trace.update(_at(points)), 1, 1)
    for row, points in enumerate(_cursors(picture, ends, seen), start=1):
        cursor = _line(GREY, 1.5, "", hoverinfo="skip", showlegend=False)
        figure.add_trace(cursor.update(_at(points)), row, 2)
    moving = [*range(still, len(figure.data))]
    frames = [
        {
            "name": str(at),
            "traces": moving,
            "data": [*map(_at, [*_moving(picture, at), *_cursors(picture, ends, at)])],
        }
        for at in shown
    ]
    _image_axes(figure, picture)
    finish(figure, height=560)
    _add_player(figure, picture, shown, seen)
    return figure, frames


def motion_maps(picture: Picture) -> go.Figure:
    """Draw frame × place maps of a panel, and of its good twin below: what detectors read."""
    shown = [(picture.features, "this panel")]
    if picture.twin_features is not None:
        shown.append((picture.twin_features, "good panel"))
    figure = make_subplots(
        len(shown), 4, shared_yaxes=True, shared_xaxes=True, horizontal_spacing=0.025,
        vertical_spacing=0.09,
    )  # fmt: skip
    places = (np.arange(picture.config.places) + 0.5) / picture.config.places
    for k, name in enumerate(MAPS):
        maps = [_map(features, name) for features, _ in shown]
        reach = float(max(np.quantile(np.abs(values), 0.995) for values in maps)) or 1.0
        for row, values in enumerate(maps, start=1):
            figure.add_trace(
                go.Heatmap(
                    z=values.T,
                    x=picture.seconds.astype(np.float32),
                    y=places.astype(np.float32),
                    coloraxis=f"coloraxis{k + 1}",
                    hovertemplate="%{x:.2f} s, place %{y:.2f}<br>"
                    f"{words(name)} %{{z:.3g}} {unit_of('map', name)}<extra></extra>",
                ),
                row,
                k + 1,
            )
            if row == 1:
                _mark_crack(figure, picture, row, k + 1)
        figure.update_layout({f"coloraxis{k + 1}": _coloraxis(figure, name, k, reach)})
        figure.update_xaxes(title="time (s)", row=len(shown), col=k + 1)
    for row, (_, what) in enumerate(shown, start=1):
        figure.update_yaxes(title=f"{what}<br>place along the board", row=row, col=1)
    figure.update_xaxes(showgrid=False)
    figure.update_yaxes(showgrid=False, range=[0, 1])
    finish(figure, height=170 + 190 * len(shown))
    figure.update_layout(margin={"t": 92, "b": 52, "l": 84, "r": 16})
    return figure


def _line(color: str, width: float, name: str, **more: Any) -> go.Scatter:
    line = {"color": color, "width": width}
    return go.Scatter(mode="lines", line=line, name=name, **more)


def _at(points: npt.NDArray[Any]) -> dict[str, npt.NDArray[Any]]:
    return {"x": points[0], "y": points[1]}


def _moving_traces(picture: Picture) -> list[go.Scatter]:
    """Return the traces of `_moving`, without their points."""
    pixels = {"hovertemplate": "%{x}, %{y} px<extra></extra>"}
    traces = []
    if picture.arrows:
        traces.append(_arrows(_TEAL, f"velocity × {_VELOCITY_S:g} s"))
        traces.append(_arrows(_PURPLE, f"acceleration × {_ACCELERATION_S2:g} s²"))
    if picture.twin_curve is not None:
        traces.append(_line(BLUE, 2, "the good panel of its number", **pixels))
    name = "panel" if picture.twin_curve is None else "this panel"
    traces.append(_line(picture.color, 3, name, **pixels))
    if picture.crack_place is not None:
        traces.append(
            go.Scatter(
                mode="markers",
                marker={"symbol": "circle-open", "size": 15, "color": RED, "line": {"width": 2.5}},
                name="crack",
                hovertemplate=f"crack at {picture.crack_place:.2f} of the length<extra></extra>",
            )
        )
    if picture.found_place is not None:
        traces.append(
            go.Scatter(
                mode="markers",
                marker=FOUND_MARK,
                name="found",
                hovertemplate=f"found at {picture.found_place:.2f} of the length<extra></extra>",
            )
        )
    return traces


def _moving(picture: Picture, at: int) -> list[npt.NDArray[Any]]:
    """Return the points (2, k) of what moves on the board, in frame ``at``."""
    found: list[npt.NDArray[Any]] = []
    if picture.arrows:
        base, velocity, acceleration = (values[:, at] for values in picture.vectors)
        found.append(_segments(base, base + _VELOCITY_S * velocity))
        found.append(_segments(base, base + _ACCELERATION_S2 * acceleration))
    if picture.twin_curve is not None:
        found.append(picture.twin_curve[:, at])
    found.append(picture.curve[:, at])
    for share, since in (
        (picture.crack_place, picture.damage_frame),
        (picture.found_place, picture.found_frame),
    ):
        if share is not None:
            place = round(share * (picture.curve.shape[2] - 1))
            shown = since is None or at >= since
            found.append(picture.curve[:, at, place : place + 1 if shown else place])
    return found


def _segments(start: Singles, end: Singles) -> npt.NDArray[np.float64]:
    """Return lines from each start to its end (2, 3k), with gaps between them."""
    parts = np.stack([start, end, np.full_like(start, np.nan)], axis=2)
    return parts.reshape(2, -1).astype(np.float64).round(1)


def _arrows(color: str, name: str) -> go.Scatter:
    head = {"symbol": "arrow", "angleref": "previous", "color": color}
    return go.Scatter(
        mode="lines+markers",
        line={"color": color, "width": 1.4},
        marker=head | {"size": np.tile([0, 7, 0], _ARROWS)},
        name=name,
        hoverinfo="skip",
    )


def _draw_series(figure: go.Figure, picture: Picture) -> None:
    for row, name in enumerate(("bend_angle_deg", "kink_deg"), start=1):
        for found, color, width in (
            (picture.twin_features, BLUE, 1.5),
            (picture.features, picture.color, 2),
        ):
            if found is not None:
                figure.add_scatter(
                    x=picture.seconds.astype(np.float32),
                    y=found.frame[0, :, names("frame").index(name)],
                    mode="lines",
                    line={"color": color, "width": width},
                    showlegend=False,
                    hovertemplate=f"%{{x:.2f}} s<br>{words(name)} %{{y:.2f}} deg<extra></extra>",
                    row=row,
                    col=2,
                )
        if picture.crack_frame is not None:
            figure.add_vline(
                x=float(picture.seconds[picture.crack_frame]),
                line={"color": RED, "width": 1, "dash": "dash"},
                row=row,
                col=2,
            )
        figure.update_yaxes(title=f"{words(name)} (deg)", row=row, col=2)
    figure.update_xaxes(title="time (s)", row=2, col=2)


def _ends(figure: go.Figure) -> list[tuple[float, float]]:
    """Return what the two plots over time span, and a little more."""
    found = []
    for axis in ("y2", "y3"):
        values = np.concatenate([trace.y for trace in figure.data if trace.yaxis == axis])
        margin = 0.05 * float(np.ptp(values)) or 1.0
        found.append((float(values.min()) - margin, float(values.max()) + margin))
    return found


def _cursors(
    picture: Picture, ends: Sequence[tuple[float, float]], at: int
) -> list[npt.NDArray[np.float64]]:
    second = float(picture.seconds[at])
    return [np.array([[second, second], [low, high]]).round(4) for low, high in ends]


def _image_axes(figure: go.Figure, picture: Picture) -> None:
    curves = [picture.curve] if picture.twin_curve is None else [picture.curve, picture.twin_curve]
    low = np.min([curve.min(axis=(1, 2)) for curve in curves], axis=0) - 18
    high = np.max([curve.max(axis=(1, 2)) for curve in curves], axis=0) + 18
    figure.update_xaxes(title="x (px)", range=[int(low[0]), int(high[0])], row=1, col=1)
    # Rows of an image are counted from its top.
    figure.update_yaxes(
        title="y (px)", range=[int(high[1]), int(low[1])], scaleanchor="x", row=1, col=1
    )


def _add_player(figure: go.Figure, picture: Picture, shown: Sequence[int], seen: int) -> None:
    step_ms = 1000 / float(picture.panel.fps[0])
    still = {"mode": "immediate", "frame": {"duration": 0, "redraw": False}}
    still["transition"] = {"duration": 0}
    play = still | {"fromcurrent": True, "frame": {"duration": step_ms, "redraw": False}}
    slow = still | {"fromcurrent": True, "frame": {"duration": 5 * step_ms, "redraw": False}}
    buttons = [("▶ play", None, play), ("▶ slowly", None, slow), ("❚❚ stop", [None], still)]
    steps = [
        {
            "label": f"{at} ({picture.seconds[at]:.2f} s)"
            + (" · crack" if at == picture.crack_frame else ""),
            "method": "animate",
            "args": [[str(at)], still],
        }
        for at in shown
    ]
    figure.update_layout(
        margin={"b": 136},
        updatemenus=[
            {
                "type": "buttons", "direction": "left", "x": 0, "y": 0, "xanchor": "left",
                "yanchor": "top", "pad": {"t": 58}, "showactive": False,
                "bgcolor": "rgba(128,128,128,0.16)", "borderwidth": 0,
                "buttons": [
                    {"label": text, "method": "animate", "args": [which, how]}
                    for text, which, how in buttons
                ],
            }
        ],
        sliders=[
            {
                # Below the buttons, its text beside them: on a phone there is no room for more.
                "x": 0, "len": 1, "y": 0, "pad": {"t": 64}, "steps": steps,
                "active": shown.index(seen),
                "ticklen": 0, "minorticklen": 0,
                "currentvalue": {
                    "prefix": "frame ", "xanchor": "right", "font": {"color": GREY, "size": 13},
                },
                "font": {"color": "rgba(0,0,0,0)", "size": 1},
                "borderwidth": 0, "bgcolor": "rgba(128,128,128,0.3)",
            }
        ],
    )  # fmt: skip


def _mark_crack(figure: go.Figure, picture: Picture, row: int, column: int) -> None:
    if picture.crack_frame is not None:
        second = float(picture.seconds[picture.crack_frame])
        figure.add_vline(
            x=second, line={"color": RED, "width": 1.2, "dash": "dash"}, row=row, col=column
        )
    if picture.crack_place is not None:
        figure.add_hline(
            y=picture.crack_place, line={"color": RED, "width": 1.2, "dash": "dot"},
            row=row, col=column,
        )  # fmt: skip


def _coloraxis(figure: go.Figure, name: str, k: int, reach: float) -> dict[str, Any]:
    left, right = figure.layout[f"xaxis{k + 1 if k else ''}"].domain
    return {
        "colorscale": _DIVERGING,
        "cmin": -reach,
        "cmax": reach,
        "colorbar": {
            "orientation": "h", "x": (left + right) / 2, "len": right - left - 0.01, "y": 1.0,
            "yanchor": "bottom", "thickness": 8, "outlinewidth": 0, "nticks": 5,
            "title": {"text": f"{words(name)} ({unit_of('map', name)})", "side": "top"},
        },
    }  # fmt: skip


def _map(features: Features, name: str) -> npt.NDArray[np.float32]:
    return features.maps[0, names("map").index(name)].astype(np.float32)


def _thinned(batch: PanelBatch, most_points: int) -> npt.NDArray[np.int16]:
    every = -(-int(batch.n_points[0]) // most_points)
    return batch.points[0, :, :, : batch.n_points[0] : every]
