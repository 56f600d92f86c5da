"""The problem that the Lasso solves, and what stands behind the columns of its matrix."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import scipy.sparse as sp

from cluster.storage import Store
from pipelines.news.design.early_drop import Aside
from pipelines.news.design.matrix import Design
from pipelines.news.design.twins import Twins, find_twins, name_preference
from pipelines.news.market.observations import Observations
from pipelines.news.reading.ingest import Inputs

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Known:
    """All n-grams that give a text its length, also those left out of the matrix.

    Attributes
    ----------
    columns : ndarray (n_ngrams,), int64
        Vocabulary row (or hashed column) of each.
    idf : ndarray (n_ngrams,)
    names : pa.Array of string, or None with hashing
    """

    columns: IntArray
    idf: FloatArray
    names: pa.Array | None


@dataclass(frozen=True, eq=False)
class Columns:
    """What stands behind the columns of the solved matrix.

    Attributes
    ----------
    design : Design
        All n-gram columns, before twins were merged.
    names : pa.Array of string, or None with hashing
        N-gram of each column of ``design``.
    known : Known
    twins : Twins
    solved : ndarray (n_solved,), int64
        Column of ``design`` behind each solved column; -1 - i for numeric feature i.
    preference : ndarray (n_solved,), int64
        Which of several twins should stay, smallest first.
    features : tuple of str
    feature_mean, feature_std : ndarray (n_features,)
    """

    design: Design
    names: pa.Array | None
    known: Known
    twins: Twins
    solved: IntArray
    preference: IntArray
    features: tuple[str, ...]
    feature_mean: FloatArray
    feature_std: FloatArray


@dataclass(frozen=True)
class Counted:
    """The texts' n-grams as pass 1 left them: ``n_blocks`` blocks in ``store``."""

    store: Store
    n_blocks: int
    hash_bits: int


@dataclass(frozen=True, eq=False)
class NewsProblem:
    """Everything the solver needs, and what is needed to read its answer.

    Attributes
    ----------
    X : csc_matrix (n_samples, n_solved)
    Y : ndarray (n_samples, n_targets)
        Standardised; NaN where a target is undefined.
    roles : ndarray (n_folds + 1, n_samples), int8
        The last row trains on every row.
    text_group : ndarray (n_samples,), int64
        Equal for equal texts.
    mean, std : ndarray (n_targets,)
        Of the raw targets.
    counted : Counted
        The counted blocks, for a second look at their n-grams.
    features : ndarray (n_samples, n_features)
    aside : Aside, optional
        What was left out of the matrix; None when that is nothing.
    """

    X: sp.csc_matrix
    Y: FloatArray
    roles: npt.NDArray[np.int8]
    text_group: IntArray
    mean: FloatArray
    std: FloatArray
    observations: Observations
    columns: Columns
    inputs: Inputs
    counted: Counted
    features: FloatArray
    aside: Aside | None = None

    @property
    def n_folds(self) -> int:
        """Number of folds, without the row of all rows."""
        return self.roles.shape[0] - 1


def solved_columns(
    design: Design, known: Known, features: tuple[str, ...], values: FloatArray
) -> tuple[sp.csc_matrix, Columns]:
    """Merge twins and append the numeric features, standardised; a missing value is the mean."""
    names = known.names
    if names is not None:
        names = names.take(pa.array(np.searchsorted(known.columns, design.columns)))
    preference = np.arange(design.X.shape[1]) if names is None else name_preference(names)
    twins = find_twins(design.X, preference)
    X = design.X if twins.kept.size == design.X.shape[1] else design.X[:, twins.kept]
    mean, std = np.zeros(0), np.zeros(0)
    if features:
        mean, std = np.nanmean(values, axis=0), np.nanstd(values, axis=0)
        # On the scale of a typical n-gram column, so that one alpha suits both.
        unit = np.nan_to_num((values - mean) / std) / np.sqrt(values.shape[0])
        X = sp.hstack((X, sp.csc_matrix(unit)), format="csc")
    X.sort_indices()
    numbers = np.arange(len(features))
    return sp.csc_matrix(X), Columns(
        design=design,
        names=names,
        known=known,
        twins=twins,
        solved=np.concatenate((twins.kept, -1 - numbers)),
        preference=np.concatenate((preference[twins.kept], design.X.shape[1] + numbers)),
        features=features,
        feature_mean=mean,
        feature_std=std,
    )
