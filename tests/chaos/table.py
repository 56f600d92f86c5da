"""What came of all faults, a row a scenario."""

from statistics import mean, median

from chaos.plan import SCENARIOS

_COLUMNS = ("scenario", "struck", "equal", "recovery_median_s", "recovery_worst_s", "extra_mean_s",
            "missed")  # fmt: skip
_HEADS = ("scenario", "struck", "survived, equal", "going on after (median)", "(worst)",
          "extra work a fault", "missed, tried again")  # fmt: skip


def summarise(outcomes):
    """Return a row for each scenario that was played, and one for all.

    ``outcomes`` are dicts as `episode.as_row` makes them; what hit nobody counts as missed alone.
    """
    names = [s.name for s in SCENARIOS if any(o["scenario"] == s.name for o in outcomes)]
    rows = [_row(name, [o for o in outcomes if o["scenario"] == name]) for name in names]
    return [*rows, _row("all", outcomes)]


def _row(name, outcomes):
    hits = [o for o in outcomes if not o["missed"]]
    recoveries = [o["recovery_s"] for o in hits if o["recovery_s"] is not None]
    extras = [o["extra_s"] for o in hits if o["extra_s"] is not None]
    return {
        "scenario": name,
        "struck": len(hits),
        "equal": sum(o["survived"] for o in hits),
        "recovery_median_s": round(median(recoveries), 1) if recoveries else None,
        "recovery_worst_s": round(max(recoveries), 1) if recoveries else None,
        "extra_mean_s": round(mean(extras), 1) if extras else None,
        "missed": len(outcomes) - len(hits),
    }


def as_markdown(rows):
    """Return the rows as a table."""
    lines = [_HEADS, ["---", *["---:"] * (len(_HEADS) - 1)]]
    lines += [["" if row[name] is None else f"{row[name]}{_unit(name)}" for name in _COLUMNS]
              for row in rows]  # fmt: skip
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def _unit(name):
    return " s" if name.endswith("_s") else ""
