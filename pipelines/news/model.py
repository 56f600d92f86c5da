"""What a run keeps to score new texts: columns with their weighting, and weights per target."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import scipy.sparse as sp

from cluster.storage import Store
from pipelines.news.config import NewsConfig
from pipelines.news.design.matrix import weigh_rows
from pipelines.news.design.ngrams import NgramConfig, count_ngrams
from pipelines.news.finished import require_finished
from pipelines.news.fitting.solve import Chosen
from pipelines.news.problem import NewsProblem

FloatArray = npt.NDArray[np.float64]

MODEL, COLUMNS = "model/model.json", "model/columns.parquet"


def write_model(
    run: Store, config: NewsConfig, problem: NewsProblem, chosen: Sequence[Chosen]
) -> None:
    """Write what :func:`read_model` reads."""
    known = problem.columns.known
    table = {"column": known.columns, "idf": known.idf}
    if known.names is not None:
        table = {"ngram": known.names, **table}
    run.write_table(COLUMNS, pa.table(table))
    names = problem.observations.target_names
    run.write_json(
        MODEL,
        {
            "ngrams": asdict(config.ngrams),
            "observations": config.design.observations,
            "features": {
                name: {"mean": float(mean), "std": float(std)}
                for name, mean, std in zip(
                    problem.columns.features,
                    problem.columns.feature_mean,
                    problem.columns.feature_std,
                    strict=True,
                )
            },
            "targets": {
                name: {
                    "intercept": answer.intercept,
                    "mean": float(problem.mean[target]),
                    "std": float(problem.std[target]),
                }
                for target, (name, answer) in enumerate(zip(names, chosen, strict=True))
            },
        },
    )


@dataclass(frozen=True, eq=False)
class SentimentModel:
    """Scores texts as the run's solution would have predicted them.

    Attributes
    ----------
    ngrams : NgramConfig
    known : pa.Array of string, or None with hashing
        N-grams of the columns.
    columns, idf : ndarray (n_columns,)
    targets : dict of target to {intercept, mean, std}
    words : pa.Table
        The dictionary.
    observations : str
        What a row was: ``documents`` or ``days``.
    """

    ngrams: NgramConfig
    known: pa.Array | None
    columns: npt.NDArray[np.int64]
    idf: FloatArray
    targets: dict[str, dict[str, float]]
    words: pa.Table
    observations: str

    def weigh(self, texts: Sequence[str]) -> sp.csr_matrix:
        """Return the weighted n-grams of new texts over the run's columns (n, n_columns)."""
        counts = count_ngrams(texts, self.ngrams)
        if self.known is not None:
            found = pc.fill_null(pc.index_in(counts.names, value_set=self.known), -1)
            local = found.to_numpy(zero_copy_only=False).astype(np.int64)
        else:
            hashed = (counts.hashes & np.uint64((1 << self.ngrams.hash_bits) - 1)).astype(np.int64)
            at = np.minimum(np.searchsorted(self.columns, hashed), self.columns.size - 1)
            local = np.where(self.columns[at] == hashed, at, -1)
        column = local[counts.ids]
        rows = np.repeat(np.arange(len(texts)), np.diff(counts.indptr))
        kept = column >= 0
        X = sp.coo_matrix(
            (counts.counts[kept].astype(np.float64), (rows[kept], column[kept])),
            shape=(len(texts), self.columns.size),
        ).tocsr()
        X.sum_duplicates()
        if self.ngrams.weighting == "tfidf":
            weigh_rows(X, self.idf)
        return X

    def contributions(self, texts: Sequence[str]) -> dict[str, tuple[sp.csr_matrix, list[str]]]:
        """Return for each target coef x value of every dictionary word (n, n_words), and the words.

        Numeric features, whose value a text does not carry, stand at their mean: they add nothing.
        """
        X = self.weigh(texts)
        position = {int(column): j for j, column in enumerate(self.columns)}
        found = {}
        for target in self.targets:
            words = self.words.filter(pc.equal(self.words["target"], target))
            words = words.filter(pc.greater_equal(words["column"], 0))
            at = [position[column] for column in words["column"].to_pylist()]
            coef = words["coef"].to_numpy()
            share = X[:, at].multiply(coef).tocsr()
            found[target] = (share, words["ngram"].to_pylist())
        return found

    def standardised(self, target: str, shares: sp.csr_matrix) -> FloatArray:
        """Return the score of each text in standard deviations of the target (n,)."""
        return np.asarray(shares.sum(axis=1)).ravel() + self.targets[target]["intercept"]


def read_model(run: Store) -> SentimentModel:
    """Read the model of a finished run.

    Raises
    ------
    InputError
        When the folder holds no finished news run, or the run's files were damaged.
    """
    require_finished(run, MODEL, COLUMNS, "dictionary.parquet")
    saved: dict[str, Any] = run.read_json(MODEL)
    options: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in saved["ngrams"].items()
    }
    columns = run.read_table(COLUMNS)
    has_names = "ngram" in columns.column_names
    return SentimentModel(
        ngrams=NgramConfig(**options),
        known=columns["ngram"].combine_chunks() if has_names else None,
        columns=columns["column"].to_numpy(),
        idf=columns["idf"].to_numpy(),
        targets=saved["targets"],
        words=run.read_table("dictionary.parquet"),
        observations=saved["observations"],
    )
