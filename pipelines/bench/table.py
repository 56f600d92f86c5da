"""The rows of a comparison as Markdown, CSV and cells for a terminal."""

import csv
import io
from collections.abc import Mapping
from typing import Any


def cells(results: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return one row of text a measured row, in order; what was ended early shows as ``> x``."""
    shown = []
    for row in results["rows"]:
        sign = "> " if row["at_least"] else ""
        status = row["status"] + (f": {row['reason']}" if row["reason"] else "")
        shown.append(
            {
                "work": row["work"],
                "solver": row["solver"],
                "status": status,
                "tol": f"{row['tol']:.0e}",
                "gap": "-" if row["gap"] is None else f"{row['gap']:.1e}",
                "words": "-" if row["nonzeros"] is None else f"{row['nonzeros']:,}",
                "CPU s": sign + _number(row["cpu_seconds"]),
                "wall s": sign + _number(row["wall_seconds"]),
                "peak GiB": "-" if row["peak_gib"] is None else f"{row['peak_gib']:.2f}",
                "runs": str(row["runs"]),
                "ratio": "-" if row["ratio"] is None else sign + _number(row["ratio"]),
            }
        )
    return shown


def as_markdown(results: Mapping[str, Any]) -> str:
    """Return the table as Markdown, with what it was measured on above and who is absent below."""
    problem, machine = results["problem"], results["machine"]
    rows = cells(results)
    lines = [
        f"{problem['title']}: {problem['rows']:,} x {problem['columns']:,}, "
        f"{problem['nonzeros']:,} non-zeros; relative gap {results['asked_gap']:g} asked for; "
        f"{results['threads']} thread(s) each; {machine['cores']} cores, {machine['system']}.",
        "",
        f"| {' | '.join(rows[0])} |",
        f"|{' --- |' * len(rows[0])}",
        *(f"| {' | '.join(row.values())} |" for row in rows),
        *(f"\n{line}" for line in results["missing"].values()),
    ]
    return "\n".join(lines) + "\n"


def as_csv(results: Mapping[str, Any]) -> str:
    """Return the rows as CSV with plain numbers, without their single tries."""
    rows = [{k: v for k, v in row.items() if k != "tries"} for row in results["rows"]]
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _number(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"
