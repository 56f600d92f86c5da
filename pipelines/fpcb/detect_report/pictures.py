"""The detection report's pictures: panels judged wrongly, or found, with their anomaly maps."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import plotly.graph_objects as go

from pipelines.fpcb.detect_report.tables import said, write_share_1
from pipelines.fpcb.features.extraction import FeatureConfig
from pipelines.fpcb.panels import PanelBatch
from pipelines.fpcb.quality.page import panel_title
from pipelines.fpcb.quality.pictures import FOUND_MARK, Picture, stepped_panel
from pipelines.report_page import RED, figure_json, finish
from pipelines.report_text import is_number, visible

MOST_PICTURES = 12
_MOST_POINTS = 130  # of a panel: more would be seen by nobody, and make a page of 10 MB
_MAPS = {
    "excess": ("excess curvature", "rad"),
    "evidence": ("evidence of a kink", "σ"),
    "dream": ("DREAM: log odds of a crack", ""),
    "patchcore": ("PatchCore: distance", ""),
}
_SIGNED = ("excess", "evidence")
_DIVERGING = [[0.0, "#2f6db3"], [0.5, "#f4f4f2"], [1.0, "#c4662a"]]
_RISING = [[0.0, "#f4f4f2"], [0.35, "#f0c8a4"], [1.0, "#b4521b"]]
_TRUTH_MARK = {"symbol": "circle-open", "size": 15, "color": RED, "line": {"width": 2.5}}


@dataclass(frozen=True, eq=False, kw_only=True)
class Seen:
    """A panel that the report shows: what is known of it, and its maps (n_frames, places)."""

    number: int
    reason: str
    known: Mapping[str, Any]
    maps: Mapping[str, npt.NDArray[np.floating]]
    panel: PanelBatch | None

    @property
    def called(self) -> bool:
        """Whether the panel was called NG: only then anything was found."""
        return bool(self.known.get("called_ng"))

    @property
    def stretch(self) -> float:
        """The panel's own frames for each of the maps', which may be resampled."""
        n_frames = len(self.maps["excess"]) if "excess" in self.maps else 0
        own = self.known.get("n_frames")
        return (own - 1) / (n_frames - 1) if is_number(own) and n_frames > 1 else 1.0


def seen_panels(
    pictures: Mapping[str, npt.NDArray[Any]] | None, scores: pd.DataFrame
) -> list[Seen]:
    """Return the panels of ``pictures.npz`` that scores are known of; the first `MOST_PICTURES`."""
    if not pictures or not pictures.get("number", np.empty(0)).size:
        return []
    rows = scores.drop_duplicates("number").set_index("number")
    found = []
    for at, number in enumerate(pictures["number"].tolist()):
        if number not in rows.index:
            continue
        known = {k: None if pd.isna(v) else v for k, v in rows.loc[number].to_dict().items()}
        found.append(
            Seen(
                number=number,
                reason=str(pictures["reason"][at]),
                known=known,
                maps={name: pictures[name][at] for name in _MAPS if name in pictures},
                panel=_panel(pictures, at),
            )
        )
    return found[:MOST_PICTURES]


def scene(seen: Seen, config: FeatureConfig) -> dict[str, Any]:
    """Return what the page shows of a panel: its title, its motion, its maps."""
    return {
        "id": f"panel-{seen.number}",
        "name": f"{visible(seen.reason)} · {said(str(seen.known.get('scenario') or ''))} "
        f"{seen.number}",
        "title": panel_title(seen.known, seen.number, _fps(seen)),
        "verdict": _verdict(seen),
        "panel": None
        if seen.panel is None
        else figure_json(*stepped_panel(_picture(seen, config))),
        "maps": [figure_json(map_figure(seen, name)) for name in seen.maps],
    }


def map_figure(seen: Seen, name: str) -> go.Figure:
    """Draw one map of a panel, with the crack that is and the crack that was found."""
    values = np.asarray(seen.maps[name], dtype=np.float32)
    values = np.where(np.isfinite(values), values, np.float32(0))
    low, high = _ends(name, values)
    frames = np.arange(len(values)) * seen.stretch
    places = (np.arange(values.shape[1]) + 0.5) / values.shape[1]
    words, unit = _MAPS[name]
    figure = go.Figure(
        go.Heatmap(
            z=_rounded(values, high - low).T,
            x=frames.astype(np.float32),
            y=places.astype(np.float32),
            colorscale=_DIVERGING if name in _SIGNED else _RISING,
            zmin=low,
            zmax=high,
            colorbar={
                "orientation": "h", "x": 0.5, "len": 1.0, "y": 1.0, "yanchor": "bottom",
                "thickness": 8, "outlinewidth": 0, "nticks": 5,
                "title": {"text": f"{words} ({unit})" if unit else words, "side": "top"},
            },
            hovertemplate=f"frame %{{x:.0f}}, place %{{y:.2f}}<br>%{{z:.3g}} {unit}<extra></extra>",
        )
    )  # fmt: skip
    _mark_truth(figure, seen, frames)
    _mark_found(figure, seen)
    figure.update_xaxes(title="frame", showgrid=False, range=[frames[0] - 0.5, frames[-1] + 0.5])
    figure.update_yaxes(title="place along the board", showgrid=False, range=[0, 1])
    finish(figure, height=310)
    return figure.update_layout(showlegend=False, margin={"t": 74, "b": 48, "l": 58, "r": 12})


def _mark_truth(figure: go.Figure, seen: Seen, frames: npt.NDArray[np.floating]) -> None:
    frame, place = seen.known.get("crack_frame"), seen.known.get("crack_place")
    line = {"color": RED, "width": 1.2}
    if is_number(frame):
        figure.add_vline(x=float(frame), line={**line, "dash": "dash"})
    if is_number(place):
        figure.add_hline(y=float(place), line={**line, "dash": "dot"})
    if is_number(place):
        damage = seen.known.get("damage_frame")
        since = next((f for f in (damage, frame) if is_number(f)), frames[-1])
        figure.add_scatter(
            x=[float(since)], y=[float(place)], mode="markers", marker=_TRUTH_MARK,
            hovertemplate="truth: frame %{x:.0f}, place %{y:.3f}<extra></extra>",
        )  # fmt: skip


def _mark_found(figure: go.Figure, seen: Seen) -> None:
    frame, place = seen.known.get("found_frame"), seen.known.get("found_place")
    if not (seen.called and is_number(frame) and is_number(place)):
        return
    early, late = (seen.known.get(name) for name in ("found_earliest", "found_latest"))
    interval: dict[str, Any] = {}
    if is_number(early) and is_number(late):
        interval["error_x"] = {
            "type": "data", "symmetric": False, "array": [max(0.0, late - frame)],
            "arrayminus": [max(0.0, frame - early)], "color": FOUND_MARK["color"],
            "thickness": 2, "width": 5,
        }  # fmt: skip
    figure.add_scatter(
        x=[float(frame)], y=[float(place)], mode="markers", marker=FOUND_MARK,
        hovertemplate="found: frame %{x:.0f}, place %{y:.3f}<extra></extra>", **interval,
    )  # fmt: skip


def _verdict(seen: Seen) -> str:
    known = seen.known
    if not seen.called:
        return "Passed as good" + _sure(known) + "."
    text = "Called NG" + _sure(known)
    if is_number(known.get("found_frame")):
        text += f": from frame {known['found_frame']:.0f}"
        if is_number(known.get("found_earliest")) and is_number(known.get("found_latest")):
            text += f" ({known['found_earliest']:.0f}–{known['found_latest']:.0f})"
    if is_number(known.get("found_place")):
        text += f" at {known['found_place']:.3f} of its length"
    if is_number(known.get("found_kink_deg")):
        text += f", a hinge of {known['found_kink_deg']:.1f}°"
    return text + "."


def _sure(known: Mapping[str, Any]) -> str:
    sure = known.get("sure")
    return f", {write_share_1(sure)} sure of a crack" if is_number(sure) else ""


def _picture(seen: Seen, config: FeatureConfig) -> Picture:
    assert seen.panel is not None
    known = seen.known
    stretch = seen.stretch
    whole = {
        name: None if not is_number(value := known.get(key)) else round(value / stretch)
        for name, key in (
            ("crack_frame", "crack_frame"), ("damage_frame", "damage_frame"),
            ("found_frame", "found_frame"),
        )
    }  # fmt: skip
    if not seen.called:
        whole["found_frame"] = None
    return Picture(
        scenario=str(known.get("scenario") or ""),
        title="",
        bad=known.get("label") == 1,
        panel=seen.panel,
        twin=None,
        crack_place=known.get("crack_place"),
        config=config,
        found_place=known.get("found_place") if seen.called else None,
        most_points=_MOST_POINTS,
        arrows=False,
        **whole,
    )


def _panel(pictures: Mapping[str, npt.NDArray[Any]], at: int) -> PanelBatch | None:
    if not {"points", "n_points", "fps"} <= {*pictures}:
        return None
    own = slice(at, at + 1)
    return PanelBatch(
        pictures["number"][own],
        pictures["points"][own],
        pictures["n_points"][own],
        pictures["fps"][own],
        np.full(1, np.nan),
    )


def _fps(seen: Seen) -> float | None:
    if seen.panel is not None:
        return float(seen.panel.fps[0])
    fps = seen.known.get("fps")
    return float(fps) if is_number(fps) and fps > 0 else None


def _ends(name: str, values: npt.NDArray[np.float32]) -> tuple[float, float]:
    """Return the values of the first and the last colour of a map."""
    if name in _SIGNED:
        reach = float(np.quantile(np.abs(values), 0.998)) or 1.0
        return -reach, reach
    low, high = (float(end) for end in np.quantile(values, [0.002, 0.998]))
    return (low, high) if high > low else (low, low + 1.0)


def _rounded(values: npt.NDArray[np.float32], span: float) -> npt.NDArray[np.float32]:
    """Drop digits that no colour can show: they are noise."""
    step = 10.0 ** (np.floor(np.log10(span)) - 3)
    return np.asarray(np.round(values / step) * step, dtype=np.float32)
