"""What reports write: numbers as a reader expects them, and texts that cannot do harm."""

import math
import unicodedata
from typing import Any, TypeGuard

import numpy as np

LABEL_COLUMNS = 34
HOVER_CHARACTERS = 240

_TURNING = frozenset(
    "\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u2028\u2029"
)


def visible(text: str) -> str:
    """Return ``text`` with a mark for each character that controls, or turns the line around."""
    return "".join(
        "\ufffd" if unicodedata.category(c) in ("Cc", "Cs") or c in _TURNING else c for c in text
    )


def cut(text: str, characters: int) -> str:
    """Return ``text`` made visible, and cut when it is longer than ``characters``."""
    text = visible(text)
    return text if len(text) <= characters else f"{text[:characters]}…"


def label(text: str, columns: int = LABEL_COLUMNS) -> str:
    """Return ``text`` as a plot label no wider than ``columns`` Latin letters."""
    used, kept = 0, []
    for character in visible(text):
        used += 2 if unicodedata.east_asian_width(character) in "WF" else 1
        if used > columns:
            kept.append("…")
            break
        kept.append(character)
    return _inert("".join(kept))


def hover(text: str) -> str:
    """Return ``text`` for a hover box: broken into lines, and cut when very long."""
    text = cut(text, HOVER_CHARACTERS)
    return "<br>".join(_inert(text[i : i + 60]) for i in range(0, len(text), 60))


# Plotly reads a subset of HTML in labels (links among it), entities, and TeX between dollars.
def _inert(text: str) -> str:
    for character, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("$", "&#36;")):
        text = text.replace(character, entity)
    return text


def write_count(value: Any) -> str:
    """Write a whole number with thousands separated; a dash when there is none."""
    return f"{round(float(value)):,}" if is_number(value) else "–"


def write_number(value: Any) -> str:
    """Write four significant digits; a dash when there is no number."""
    if not is_number(value):
        return "–"
    text = f"{float(value):.4g}"
    return _power(text) if "e" in text else text.replace("-", "−")


def write_weight(value: Any) -> str:
    """Write three significant digits, trailing zeros kept: a column of them lines up."""
    if not is_number(value):
        return "–"
    text = f"{float(value):#.3g}".rstrip(".")
    return _power(text) if "e" in text else text.replace("-", "−")


def write_correlation(value: Any) -> str:
    """Write a correlation with three decimals."""
    return f"{float(value):.3f}".replace("-", "−") if is_number(value) else "–"


def write_ratio(value: Any) -> str:
    """Write a ratio with two decimals."""
    return f"{float(value):.2f}".replace("-", "−") if is_number(value) else "–"


def write_percent(value: Any) -> str:
    """Write a share as a percentage with two decimals."""
    return f"{100 * float(value):.2f} %".replace("-", "−") if is_number(value) else "–"


def write_share(value: Any) -> str:
    """Write a share as a whole percentage."""
    return f"{100 * float(value):.0f} %" if is_number(value) else "–"


def write_gap(value: Any) -> str:
    """Write a gap as 8.1 × 10⁻⁷."""
    if not is_number(value):
        return "–"
    return _power(f"{float(value):.1e}") if value else "0"


def write_duration(value: Any) -> str:
    """Write seconds as a person would: 0.4 s, 12 s, 3 min 05 s, 2 h 10 min."""
    if not is_number(value):
        return "–"
    seconds = float(value)
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def write_bytes(value: Any) -> str:
    """Write a size with three significant digits: 812 B, 9.31 MB, 2.9 GB."""
    if not is_number(value):
        return "–"
    size, units = float(value), iter(("B", "kB", "MB", "GB", "TB"))
    unit = next(units)
    while size >= 999.5 and unit != "TB":
        size, unit = size / 1000, next(units)
    return f"{size:.3g} {unit}"


def is_number(value: Any) -> TypeGuard[float]:
    """Tell whether ``value`` is a finite number."""
    return isinstance(value, int | float | np.number) and math.isfinite(value)


def _power(text: str) -> str:
    mantissa, _, exponent = text.partition("e")
    raised = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"{mantissa.replace('-', '−')} × 10{raised}"
