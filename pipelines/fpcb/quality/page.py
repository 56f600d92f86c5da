"""`tenfold fpcb report`: what a data set of panels holds, and whether it is sound."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from pipelines.fpcb.dataset import FEATURES, PANELS, UNKNOWN, DataSet
from pipelines.fpcb.panels import PanelBatch
from pipelines.fpcb.quality.checks import (
    KEY_FEATURES,
    Telling,
    best_features,
    cracks_show_early,
    cues,
    early_areas,
    feature_areas,
    nuisance_areas,
)
from pipelines.fpcb.quality.data import (
    MEASURED_PANELS,
    Duplicates,
    Frames,
    Rows,
    feature_config,
    generator_of,
    measured_rows,
    open_any,
    read_frames,
    read_rejects,
    read_rows,
    some_panels,
)
from pipelines.fpcb.quality.figures import distributions, telling_map
from pipelines.fpcb.quality.pictures import Picture, motion_maps, stepped_panel
from pipelines.fpcb.quality.verdicts import checks, splits_of
from pipelines.fpcb.scenarios import NAMES
from pipelines.fpcb.synthesis.config import GenerateConfig
from pipelines.fpcb.synthesis.generator import generate
from pipelines.report_page import figure_json, flat_config, render_page
from pipelines.report_text import cut, visible

REPORT = "quality.html"
LISTED = 20  # duplicates and rejects
_NAME_CHARACTERS, _REASON_CHARACTERS = 120, 240
_PICTURED = 24  # panels of a scenario that one is picked from, where features are kept
_COMPARED_EARLY = 8  # panels of a scenario, held against the good panels of their numbers
_KEY_NUISANCES = ("n_points", "noise_px", "length_px", "px_per_mm", "metres_per_pixel", "fps")
_CUES = ("kink_end_deg", "change_peak", "clamp_acceleration_px_s2_max")


@dataclass(frozen=True, eq=False, kw_only=True)
class Gathered:
    """What was read of a data set; ``kept`` are rows of features, or of what was measured here."""

    data: DataSet
    config: GenerateConfig | None
    kept: Rows
    frames: Sequence[Frames]
    panels: Mapping[str, Sequence[tuple[PanelBatch, pa.Table]]]
    duplicates: Duplicates
    rejects: pd.DataFrame


def write_quality(folder: str) -> dict[str, Any]:
    """Write ``quality.html`` into a data set with points, features, or both.

    Returns
    -------
    dict
        The numbers of the report, as JSON takes them.

    Raises
    ------
    InputError
        When the folder is no finished data set, or a file of it cannot be read.
    """
    found = gather(open_any(folder))
    numbers = judge(found)
    found.data.store.write_bytes(REPORT, render(found, numbers).encode())
    return numbers


def gather(data: DataSet) -> Gathered:
    """Read what the report needs; see `pipelines.fpcb.quality.data` for how much that is."""
    config = generator_of(data)
    kept, duplicates = read_rows(data)
    measured = bool(data.files(FEATURES))
    count = _PICTURED if measured else MEASURED_PANELS
    panels = some_panels(data, config, kept.known, count)
    frames = [*read_frames(data)] if measured else []
    if not measured:
        kept, frames = measured_rows(panels, feature_config(data))
    return Gathered(
        data=data,
        config=config,
        kept=kept,
        frames=frames,
        panels=panels,
        duplicates=duplicates,
        rejects=read_rejects(data),
    )


def judge(found: Gathered) -> dict[str, Any]:
    """Return the numbers of the report."""
    data, about = found.data, found.data.about
    not_test = found.kept.where((found.kept.known["split"] != "test").to_numpy())
    parts = {part: about[part] for part in (PANELS, FEATURES) if part in about}
    early = early_areas(found.frames, found.config, feature_config(data).reach_frames)
    numbers = {
        "data": data.store.uri,
        "report": f"{data.store.uri}/{REPORT}",
        "panels": data.n_panels,
        "counts": dict(about["counts"]),
        "digests": {part: files["digest"] for part, files in parts.items()},
        "files": sum(len(files["files"]) for files in parts.values()),
        "bytes": sum(files["bytes"] for files in parts.values()),
        "seed": found.config.seed if found.config else None,
        "feature_version": about.get("feature_version"),
        "measured": len(found.kept),
        "rejected": len(found.rejects),
        "rejected_for": dict(Counter(found.rejects["reason"]).most_common()),
        "duplicates": {
            "compared": found.duplicates.compared,
            "of": found.duplicates.of,
            "by": found.duplicates.by,
            "groups": len(found.duplicates.groups),
            "panels": found.duplicates.panels,
            "across_splits": found.duplicates.across_splits,
        },
        "best_features": [asdict(one) for one in best_features(not_test)],
        "nuisances": [_with_verdict(one) for one in nuisance_areas(found.kept)],
        "before_the_crack": [_with_verdict(one) for one in early],
        "differ_before_the_crack": _differ_early(found),
        "made_again": _made_again(found),
        "cues": _cue_rows(found, not_test),
    }
    return numbers | {"checks": [asdict(check) for check in checks(numbers)]}


def render(found: Gathered, numbers: Mapping[str, Any]) -> str:
    """Return the report as one self-contained HTML document."""
    data = found.data
    drawn = [picture for name in found.panels if (picture := _picture(found, name))]
    order = (*NAMES, UNKNOWN)
    pictures = sorted(drawn, key=lambda one: (not one.bad, order.index(one.scenario)))
    best = [one["feature"] for one in numbers["best_features"]]
    features = [*dict.fromkeys([*best, *KEY_FEATURES])][: len(KEY_FEATURES)]
    not_test = found.kept.where((found.kept.known["split"] != "test").to_numpy())
    return render_page(
        Path(__file__).with_name("quality.html"),
        title=visible("/".join(data.store.path.split("/")[-2:])),
        numbers=numbers,
        counts=_count_rows(found),
        splits=splits_of(numbers["counts"]),
        scenes=[
            {
                "id": f"scenario-{picture.scenario.replace('_', '-')}",
                "name": picture.scenario.replace("_", " "),
                "picture": picture,
                "panel": figure_json(*stepped_panel(picture)),
                "maps": figure_json(motion_maps(picture)),
            }
            for picture in pictures
        ],
        distributions=figure_json(distributions(found.kept, features, _nuisances(found.kept))),
        telling=figure_json(telling_map(feature_areas(not_test))),
        duplicates=found.duplicates.groups[:LISTED],
        rejects=found.rejects.head(LISTED).to_dict("records"),
        camera=_camera(found),
        name_characters=_NAME_CHARACTERS,
        reason_characters=_REASON_CHARACTERS,
        options=flat_config(
            {
                name: data.about[name]
                for name in ("generator", "features_of", "source")
                if name in data.about
            }
        ),
    )


def _with_verdict(one: Telling) -> dict[str, Any]:
    return asdict(one) | {"gives_away": one.gives_away}


def _made_again(found: Gathered) -> dict[str, int] | None:
    """Make one panel of each scenario again, and count those that are the same as on disk."""
    if found.config is None:
        return None
    same = tried = 0
    for batch, _ in [batches[0] for batches in found.panels.values() if batches]:
        number, count = int(batch.number[0]), int(batch.n_points[0])
        again = generate(found.config, [number])
        if found.data.files(PANELS):
            equal = np.array_equal(again[0].points[0], batch.points[0, :, :, :count])
        else:
            measured, _ = measured_rows({"": [again]}, feature_config(found.data))
            stored = found.kept.where((found.kept.known["number"] == number).to_numpy())
            equal = np.array_equal(stored.values[:1], measured.values, equal_nan=True)
        same, tried = same + equal, tried + 1
    return {"same": same, "of": tried}


def _differ_early(found: Gathered) -> dict[str, int] | None:
    """Hold panels that crack against the good panels of their numbers, up to the crack."""
    if found.config is None:
        return None
    known = found.kept.known
    dated = known[(known["label"] == 1) & known["crack_frame"].notna()]
    dated = dated[dated["scenario"] != "pre_damage"]
    numbers = dated.groupby("scenario")["number"].head(_COMPARED_EARLY).to_numpy()
    if not numbers.size:
        return None
    differ, of = cracks_show_early(found.config, sorted(numbers.tolist()))
    return {"differ": differ, "of": of}


def _cue_rows(found: Gathered, rows: Rows) -> list[dict[str, Any]]:
    """Return what is known of each crack's cues, and how well a feature tells each."""
    table = feature_areas(rows)
    shakes = {}
    if found.config is not None:
        shakes = {row["scenario"]: row for row in cues(found.config, rows)}
    found_rows = []
    for scenario in [name for name in NAMES if name in table.columns]:
        own = rows.known[rows.known["scenario"] == scenario]
        hinge = own["hinge_deg"].quantile([0.05, 0.5, 0.95]) if "hinge_deg" in own else None
        found_rows.append(
            {
                "scenario": scenario,
                "hinge_deg": None if hinge is None else [float(value) for value in hinge],
                "auc": {name: float(table.loc[name, scenario]) for name in _CUES},
                "shake": shakes.get(scenario),
            }
        )
    return found_rows


def _picture(found: Gathered, scenario: str) -> Picture | None:
    """Return the panel of middling severity among those read of a scenario."""
    if not found.panels[scenario]:
        return None
    batch, truth = max(found.panels[scenario], key=lambda pair: len(pair[0]))
    known = truth.to_pandas()
    row = 0
    if "severity" in known and known["severity"].notna().any():
        row = int((known["severity"] - known["severity"].median()).abs().to_numpy().argmin())
    one = known.iloc[row].to_dict()
    one = {name: None if pd.isna(value) else value for name, value in one.items()}
    bad = one.get("label") == 1
    number = int(batch.number[row])
    twin = None
    if bad and found.config is not None:
        twin, _ = generate(replace(found.config, scenario="normal"), [number])
    return Picture(
        scenario=scenario,
        title=panel_title(one, number, float(batch.fps[row])),
        bad=bad,
        panel=_only(batch, row),
        twin=twin,
        crack_frame=_whole(one.get("crack_frame")),
        damage_frame=_whole(one.get("damage_frame", one.get("crack_frame"))),
        crack_place=one.get("crack_place"),
        config=feature_config(found.data),
    )


def _only(batch: PanelBatch, row: int) -> PanelBatch:
    own = slice(row, row + 1)
    return PanelBatch(
        batch.number[own],
        batch.points[own],
        batch.n_points[own],
        batch.fps[own],
        batch.metres_per_pixel[own],
    )


def _whole(value: Any) -> int | None:
    return None if value is None else int(value)


def panel_title(one: Mapping[str, Any], number: int, fps: float | None) -> str:
    """Return what is known of a panel, as one line; values of ``one`` may be None."""
    said = [f"Panel {number}"]
    if one.get("name"):
        said.append(cut(str(one["name"]), _NAME_CHARACTERS))
    if one.get("split"):
        said.append(f"{one['split']} split")
    if (crack := one.get("crack_frame")) is not None:
        event = "came in damaged, jolts" if one.get("damage_frame") == 0 else "cracks"
        where = f" at {one['crack_place']:.2f} of its length" if one.get("crack_place") else ""
        when = f" ({crack / fps:.2f} s)" if fps else ""
        said.append(f"{event} in frame {int(crack)}{when}{where}")
    if one.get("severity") is not None:
        said.append(f"severity {one['severity']:.2f}")
    if one.get("hinge_deg") is not None:
        said.append(f"hinge of {one['hinge_deg']:.1f}° when fully bent")
    return " · ".join(said)


def _nuisances(rows: Rows) -> list[str]:
    known = [name for name in _KEY_NUISANCES if name in rows.known]
    spread = [name for name in known if rows.known[name].nunique() > 1]
    return spread[:4]


def _count_rows(found: Gathered) -> list[dict[str, Any]]:
    counts, total = found.data.about["counts"], found.data.n_panels
    label = found.kept.known.groupby("scenario")["label"].max()
    rows: dict[str, dict[str, Any]] = {}
    for name, count in counts.items():
        split, scenario = name.split("/")
        rows.setdefault(scenario, {})[split] = count
    order = [name for name in (*NAMES, UNKNOWN) if name in rows]
    words = {0.0: "good", 1.0: "cracked"}
    return [
        {
            "scenario": name,
            "label": words.get(label.get(name, np.nan), "not known"),
            "counts": rows[name],
            "n": sum(rows[name].values()),
            "share": sum(rows[name].values()) / total,
        }
        for name in order
    ]


def _camera(found: Gathered) -> dict[str, Any]:
    """Return the range of frame rates and scales of the panels."""
    known = found.kept.known
    scale = known["metres_per_pixel"].dropna()
    return {
        "fps": sorted({float(known["fps"].min()), float(known["fps"].max())}),
        "px_per_mm": [] if scale.empty else sorted({1e-3 / scale.max(), 1e-3 / scale.min()}),
        "noise_px": None if "noise_px" not in known else float(known["noise_px"].median()),
    }
