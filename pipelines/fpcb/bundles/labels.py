"""What is known of a panel beside its points: from ``metadata.json``, or a CSV of labels."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from cluster.errors import InputError
from pipelines.fpcb.bundles.frame_text import BadBundle, shown
from pipelines.fpcb.population import SPLITS
from pipelines.fpcb.scenarios import NAMES

# Columns of every imported table; what else metadata.json says is kept as JSON text in `metadata`.
LABEL_FIELDS = pa.schema(
    [
        ("scenario", pa.string()),
        ("label", pa.int8()),
        ("split", pa.string()),
        ("crack_frame", pa.int32()),
        ("metadata", pa.string()),
    ]
)


def _scenario(name: str) -> str:
    if name not in NAMES:
        raise ValueError(f"unknown scenario, expected {', '.join(NAMES)}")
    return name


def _no_crack(frame: object) -> object:
    return None if frame == -1 else frame  # trackers write -1 for none


def _split(name: str) -> str:
    if name not in SPLITS:
        raise ValueError(f"unknown split, expected {', '.join(SPLITS)}")
    return name


class PanelLabels(BaseModel):
    """What may be known of a panel; None where it is not.

    Attributes
    ----------
    label : int
        0 good, 1 damaged.
    scenario, split : str
    crack_frame : int
        First frame of the crack, from 0.
    meters_per_pixel : float
    """

    # Strict: "1", 1.0 and true are no labels.
    model_config = ConfigDict(strict=True, extra="allow", frozen=True)

    label: Annotated[int, Field(ge=0, le=1)] | None = None
    scenario: Annotated[str, AfterValidator(_scenario)] | None = None
    split: Annotated[str, AfterValidator(_split)] | None = None
    crack_frame: Annotated[Annotated[int, Field(ge=0)] | None, BeforeValidator(_no_crack)] = None
    meters_per_pixel: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None

    def row(self) -> dict[str, Any]:
        """Return the values of ``LABEL_FIELDS``."""
        values = {name: getattr(self, name, None) for name in LABEL_FIELDS.names}
        values["metadata"] = json.dumps(self.model_extra) if self.model_extra else None
        return values


def parse_metadata(data: bytes, file: str, n_frames: int) -> PanelLabels:
    """Return what the ``metadata.json`` of a bundle of ``n_frames`` says.

    Raises
    ------
    BadBundle
        When it is no JSON object, or a field holds what it may not.
    """
    try:
        text = data.decode("utf-8-sig")
        content = json.loads(text)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise BadBundle(file, line, "not UTF-8 text", data[error.start : error.end]) from None
    except json.JSONDecodeError as error:
        raise BadBundle(file, error.lineno, f"broken JSON: {error.msg}") from None
    except (ValueError, RecursionError) as error:  # thousands of digits, thousands of brackets
        raise BadBundle(file, None, "JSON that cannot be read", error) from None
    if not isinstance(content, dict):
        raise BadBundle(file, 1, "not a JSON object", text)
    labels = _checked(content, file, text)
    if labels.crack_frame is not None and labels.crack_frame >= n_frames:
        reason = f"crack_frame: the last frame is {n_frames - 1}"
        raise BadBundle(file, _line_of("crack_frame", text), reason, labels.crack_frame)
    return labels


def _checked(
    content: dict[str, Any], file: str, text: str = "", line: int | None = None
) -> PanelLabels:
    """Return the labels in ``content``; BadBundle names ``line``, or the field's in ``text``."""
    try:
        return PanelLabels.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        reason = f"{name}: {first['msg'].removeprefix('Value error, ')}"
        raise BadBundle(file, line or _line_of(name, text), reason, first["input"]) from None


def _line_of(name: str, text: str) -> int | None:
    key = re.search(rf'"{re.escape(name)}"\s*:', text)
    return text.count("\n", 0, key.start()) + 1 if key else None


@dataclass(frozen=True)
class LabelFile:
    """A CSV of labels, by name of the bundle.

    Attributes
    ----------
    file : str
    labels : mapping of name to (line, PanelLabels)
    bad : mapping of name to BadBundle
        Bundles whose line cannot be used.
    """

    file: str
    labels: dict[str, tuple[int, PanelLabels]] = field(default_factory=dict)
    bad: dict[str, BadBundle] = field(default_factory=dict)

    def apply(self, name: str, own: PanelLabels) -> PanelLabels:
        """Return ``own`` completed by what this file says of the bundle ``name``.

        Raises
        ------
        BadBundle
            When the bundle's line here is bad, or contradicts ``own``.
        """
        if name in self.bad:
            raise self.bad[name]
        if name not in self.labels:
            return own
        line, said = self.labels[name]
        known = {key: getattr(said, key) for key in ("label", "scenario", "split")}
        for key, value in known.items():
            mine = getattr(own, key)
            if value is not None and mine is not None and value != mine:
                reason = f"{key} contradicts metadata.json, which has {mine}"
                raise BadBundle(self.file, line, reason, value)
        return own.model_copy(update={k: v for k, v in known.items() if v is not None})

    def unmatched(self, names: Sequence[str]) -> list[tuple[str, BadBundle]]:
        """Return the names in this file that are not among ``names``, and the complaint."""
        known = set(names)
        found = {
            name: BadBundle(self.file, line, "no such bundle", name)
            for name, (line, _) in self.labels.items()
        }
        return [(name, bad) for name, bad in (found | self.bad).items() if name not in known]


def read_labels(file: str) -> LabelFile:
    """Read a CSV with columns ``name,label[,scenario,split]``; other columns are left alone.

    A line that cannot be used counts against its bundle, not against the file.

    Raises
    ------
    InputError
        When the file cannot be read, is not UTF-8, or lacks a column.
    """
    try:
        text = Path(file).read_text(encoding="utf-8-sig")
        rows = csv.reader(io.StringIO(text, newline=""), strict=True)
        columns = [name.strip() for name in next(rows, [])]
        missing = [name for name in ("name", "label") if name not in columns]
        if missing:
            raise InputError(file, f"no column {missing[0]!r}", "name,label[,scenario,split]")
        found = LabelFile(file)
        for row in rows:
            if any(cell.strip() for cell in row):
                _take(found, columns, row, rows.line_num)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        fix = "Pass a CSV file in UTF-8 with the columns name,label[,scenario,split]."
        raise InputError(file, "cannot be read", got=shown(error), fix=fix) from error
    return found


def _take(found: LabelFile, columns: list[str], row: list[str], line: int) -> None:
    cells = {key: cell.strip() for key, cell in zip(columns, row, strict=False)}
    name = cells.get("name", "")
    if len(row) != len(columns):
        reason = f"torn row, not {len(columns)} fields"
        found.bad[name] = BadBundle(found.file, line, reason, ",".join(row))
    elif name in found.labels or name in found.bad:
        found.bad[name] = BadBundle(found.file, line, "name repeated", name)
    elif cells["label"] not in ("0", "1", ""):
        found.bad[name] = BadBundle(found.file, line, "label: expected 0 or 1", cells["label"])
    else:
        content: dict[str, Any] = {key: cells.get(key) or None for key in ("scenario", "split")}
        content["label"] = int(cells["label"]) if cells["label"] else None
        try:
            found.labels[name] = (line, _checked(content, found.file, line=line))
        except BadBundle as bad:
            found.bad[name] = bad
