"""What a tighter tol changes in the dictionary, and which tol and layout to use."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp

# The dictionary counts as the tightest one's when it shares so many words, and so near weights.
SAME_WORDS, SAME_WEIGHTS = 0.99, 1e-3
WORTH = 1.1  # a tighter tol is taken where it costs no more than this factor
OWN_CORE = 0.8  # the share of a core below which other work must have taken the rest
EVEN = 1.05  # layouts whose rates differ by less count as equal; the smaller one is taken


def compare(coefs: sp.csc_matrix, tightest: sp.csc_matrix) -> dict[str, Any]:
    """Compare the dictionaries of two paths, alpha by alpha.

    Returns
    -------
    dict
        ``words`` at the last alpha; ``overlap`` there and ``smallest_overlap`` anywhere, of the
        words: shared over all (Jaccard); ``difference``: the largest of a coefficient, as a share
        of the tightest's largest at that alpha, over all alphas.
    """
    overlaps, differences = [], []
    for i in range(coefs.shape[1]):
        a, b = coefs[:, [i]], tightest[:, [i]]
        words, reference = (set(x.indices[x.data != 0].tolist()) for x in (a, b))
        union = words | reference
        overlaps.append(len(words & reference) / len(union) if union else 1.0)
        size = float(np.abs(b.data).max(initial=0.0))
        apart = float(np.abs((a - b).data).max(initial=0.0))
        differences.append(apart / size if size > 0 else float(bool(words)))
    return {
        "words": int(np.count_nonzero(coefs[:, [-1]].data)),
        "overlap": overlaps[-1],
        "smallest_overlap": min(overlaps),
        "difference": max(differences),
    }


def busy(layouts: Sequence[Mapping[str, Any]], cores: int) -> str:
    """Say so if workers with a core each were kept from it: their rates are not this machine's."""
    shares = [
        row["cpu_seconds_per_path"] / row["wall_seconds"]
        for row in layouts
        if row["threads"] == 1 and row["workers"] <= cores
    ]
    if not shares or min(shares) >= OWN_CORE:
        return ""
    return (
        f"a worker had as little as {min(shares):.0%} of a core: other work runs on this machine, "
        "so measure again when it is idle"
    )


def recommend(
    tols: Sequence[Mapping[str, Any]], layouts: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Choose the cheapest tol that gives the tightest one's dictionary, then the fastest layout.

    A tighter tol is taken where it costs next to nothing. Among layouts that are as fast the one
    with the fewest processes and threads is taken.
    """

    def fastest(tol: float) -> Mapping[str, Any]:
        rows = [row for row in layouts if row["tol"] == tol]
        best = max(row["paths_per_s"] for row in rows)
        even = [row for row in rows if row["paths_per_s"] * EVEN >= best]
        return min(even, key=lambda row: (row["workers"] * row["threads"], row["workers"]))

    by_tol = sorted(tols, key=lambda row: -row["tol"])
    chosen = next(
        row
        for row in by_tol
        if row is by_tol[-1]
        or (row["smallest_overlap"] >= SAME_WORDS and row["difference"] <= SAME_WEIGHTS)
    )
    for row in by_tol:
        if row["tol"] < chosen["tol"]:
            costs = fastest(chosen["tol"])["paths_per_s"] / fastest(row["tol"])["paths_per_s"]
            chosen = row if costs <= WORTH else chosen
    layout = fastest(chosen["tol"])
    single = [r for r in layouts if r["tol"] == chosen["tol"] and r["workers"] * r["threads"] == 1]
    gain = f", {layout['paths_per_s'] / single[0]['paths_per_s']:.2f} times 1 x 1" if single else ""
    loosest = by_tol[0]
    text = (
        f"use --tol {chosen['tol']:g} --workers {layout['workers']} with {layout['threads']} "
        f"thread{'s' * (layout['threads'] > 1)} each: {layout['paths_per_s']:.3g} paths/s{gain}; "
        f"its words overlap {chosen['overlap']:.3f} with the tightest's"
    )
    if loosest["tol"] > chosen["tol"]:
        faster = fastest(loosest["tol"])["paths_per_s"] / layout["paths_per_s"]
        text += (
            f" (tol {loosest['tol']:g}: {loosest['overlap']:.3f}, "
            f"{loosest['smallest_overlap']:.3f} at worst, for {faster:.2f} times the speed)"
        )
    return {
        "recommended": {
            "tol": chosen["tol"],
            "workers": layout["workers"],
            "threads": layout["threads"],
        },
        "recommendation": text,
    }
