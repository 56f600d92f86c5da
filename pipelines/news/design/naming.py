"""What the solved columns are called: n-grams, recovered n-grams of hashed columns, features."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from pipelines.news.design.vocabulary import recover_names
from pipelines.news.problem import Columns, NewsProblem

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Naming:
    """Names of columns given as in ``Columns.solved``: a design column, or -1 - i for feature i."""

    columns: Columns
    recovered: Mapping[int, list[str]] = field(default_factory=dict)

    def names(self, at: Iterable[int]) -> list[str]:
        """Return one name a column; of a hashed one its most frequent n-gram."""
        return [self._all_names(int(column))[0] for column in at]

    def aliases(self, at: Iterable[int]) -> list[list[str]]:
        """Return for each column its twins, and with hashing the n-grams that share its hash."""
        twins = self.columns.twins.aliases_by_column
        return [
            self._all_names(int(column))[1:]
            + [name for twin in twins.get(int(column), ()) for name in self._all_names(int(twin))]
            for column in at
        ]

    def _all_names(self, column: int) -> list[str]:
        if column < 0:
            return [f"feature:{self.columns.features[-1 - column]}"]
        if self.columns.names is not None:
            return [self.columns.names[column].as_py()]
        return self.recovered[column]


def name_columns(problem: NewsProblem, supports: Iterable[IntArray]) -> Naming:
    """Return the naming of every column in ``supports`` (solved columns) and of their twins.

    An exact vocabulary knows its names. Hashed columns are recovered by a second pass over the
    counted blocks.
    """
    columns = problem.columns
    if columns.names is not None:
        return Naming(columns)
    chosen = columns.solved[np.unique(np.concatenate([*supports, np.zeros(0, dtype=np.int64)]))]
    chosen = chosen[chosen >= 0]
    twins = columns.twins.aliases_by_column
    wanted = np.unique(np.concatenate([chosen, *(twins[j] for j in chosen if j in twins)]))
    buckets = columns.design.columns[wanted]
    counted = problem.counted
    found = recover_names(counted.store, counted.n_blocks, buckets, counted.hash_bits)
    return Naming(
        columns,
        {
            int(column): [ngram for ngram, _ in found[int(bucket)]]
            for column, bucket in zip(wanted, buckets, strict=True)
        },
    )
