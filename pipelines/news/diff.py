"""What changed between two dictionaries."""

from typing import Any

import numpy as np
import pandas as pd

from cluster.errors import InputError
from cluster.storage import Store
from pipelines.news.finished import require_finished
from pipelines.news.model import MODEL


def diff_dictionaries(left: str, right: str) -> tuple[pd.DataFrame, list[dict[str, Any]]]:
    """Compare the dictionaries of two runs.

    Words are matched by n-gram or by alias, so that merged twins which swapped their representative
    count as one word.

    Returns
    -------
    words : DataFrame ``target, ngram, coef_a, coef_b, change``
        Every word that stands in either, for every target of both; largest change first.
    summary : a row a target with ``words_a, words_b, common, overlap, correlation, sign_flips``

    Raises
    ------
    InputError
        When a folder holds no finished run, or the two share no target.
    """
    (a, targets_a), (b, targets_b) = _read(left), _read(right)
    targets = [target for target in targets_a if target in targets_b]
    if not targets:
        raise InputError(
            f"{left}, {right}",
            "no target in common",
            got=f"{targets_a} and {targets_b}",
            fix="Compare runs that were fitted to the same targets.",
        )
    words, summary = [], []
    for target in targets:
        mine, others = a[a["target"] == target], b[b["target"] == target]
        merged = _matched(mine, others)
        words.append(merged.assign(target=target))
        summary.append(_summary(target, merged))
    table = pd.concat(words)[["target", "ngram", "coef_a", "coef_b"]]
    table["change"] = table["coef_b"] - table["coef_a"]
    table = table.sort_values("change", key=np.abs, ascending=False, kind="stable")
    return table.reset_index(drop=True), summary


def _read(folder: str) -> tuple[pd.DataFrame, list[str]]:
    """Return the dictionary and the run's targets: one without words is not in the dictionary."""
    store = Store(folder)
    require_finished(store, "dictionary.parquet", MODEL)
    return store.read_table("dictionary.parquet").to_pandas(), [*store.read_json(MODEL)["targets"]]


def _matched(a: pd.DataFrame, b: pd.DataFrame) -> pd.DataFrame:
    """Outer join on n-grams; a word that is the other side's alias is that side's word."""
    owner = {alias: row.ngram for row in a.itertuples() for alias in row.aliases}
    own = set(a["ngram"])
    names = [n if n in own else _alias_owner(n, list(al), owner, own) for n, al in
             zip(b["ngram"], b["aliases"], strict=True)]  # fmt: skip
    right = pd.DataFrame({"ngram": pd.Series(names, dtype=str), "coef_b": b["coef"].to_numpy()})
    right = right.groupby("ngram", as_index=False, sort=False).sum()
    left = a[["ngram", "coef"]].rename(columns={"coef": "coef_a"})
    return left.merge(right, on="ngram", how="outer").fillna({"coef_a": 0.0, "coef_b": 0.0})


def _alias_owner(ngram: str, aliases: list[str], owner: dict[str, str], own: set[str]) -> str:
    if ngram in owner:
        return owner[ngram]
    return next((alias for alias in aliases if alias in own), ngram)


def _summary(target: str, words: pd.DataFrame) -> dict[str, Any]:
    in_a, in_b = words["coef_a"] != 0, words["coef_b"] != 0
    both, either = int((in_a & in_b).sum()), int((in_a | in_b).sum())
    common = words[in_a & in_b]
    correlation = None
    if both > 2 and common["coef_a"].std() > 0 and common["coef_b"].std() > 0:
        correlation = float(common["coef_a"].corr(common["coef_b"]))
    return {
        "target": target,
        "words_a": int(in_a.sum()),
        "words_b": int(in_b.sum()),
        "common": both,
        "overlap": both / either if either else 1.0,
        "correlation": correlation,
        "sign_flips": int((np.sign(common["coef_a"]) != np.sign(common["coef_b"])).sum()),
    }
