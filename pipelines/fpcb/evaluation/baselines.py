"""What a detector must beat: the best single feature, and a distance from the good panels.

Both take panel features (n, p), a column each, that a camera's points gave. The single feature is
chosen on training LABELS, which the detectors never see.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from sklearn.covariance import ledoit_wolf

from cluster.errors import InputError
from pipelines.fpcb.evaluation.curves import Bools, checked, need_cracked, need_good
from pipelines.fpcb.evaluation.intervals import Floats
from pipelines.fpcb.features.store import column
from pipelines.fpcb.features.table import names
from pipelines.fpcb.quality.checks import areas

_COLUMNS = 16  # whose ranks are held at once
_PANELS = 500  # whose distances are worked out at once: they stay in the cache
_NORMAL_IQR = 1.349  # interquartile range of a normal distribution of standard deviation 1


def panel_features(table: pa.Table) -> npt.NDArray[np.float32]:
    """Return the panel features (n, p) of rows of features, in the order of the feature table."""
    columns = [table[column("panel", name)].to_numpy() for name in names("panel")]
    return np.stack(columns, axis=1).astype(np.float32, copy=False)


@dataclass(frozen=True, kw_only=True)
class BestFeature:
    """The panel feature that tells training panels apart best.

    Attributes
    ----------
    name : str
    index : int
        Its column.
    sign : int
        1 where large values tell, −1 where small ones do.
    train_roc_auc : float
    middle : float
        Median of the good training panels, which a panel without the feature is taken to have.
    n_features : int
        Columns there were to choose from.
    """

    name: str
    index: int
    sign: int
    train_roc_auc: float
    middle: float
    n_features: int

    @classmethod
    def fit(
        cls, features: npt.ArrayLike, label: npt.ArrayLike, feature_names: Sequence[str]
    ) -> Self:
        """Choose the feature and sign with the largest ROC AUC; of equals, the first.

        Features that are unknown of a panel, or the same in all, are left out.

        Raises
        ------
        InputError
            When training panels are of one class only, or no feature is left.
        """
        values = _table(features, feature_names)
        bad, _ = checked(label, np.zeros(len(values)), "training panels")
        need_good(bad, "training panels")
        fix = "Label some cracked training panels, or leave this baseline out."
        need_cracked(bad, "training panels", fix)
        usable = np.flatnonzero(_usable(values))
        area = np.concatenate(
            [
                areas(values[bad][:, part], values[~bad][:, part])
                for part in np.array_split(usable, math.ceil(usable.size / _COLUMNS))
            ]
        )
        best = int(np.abs(area - 0.5).argmax())
        index, sign = int(usable[best]), 1 if area[best] >= 0.5 else -1
        return cls(
            name=feature_names[index],
            index=index,
            sign=sign,
            train_roc_auc=float(area[best] if sign > 0 else 1 - area[best]),
            middle=float(np.median(values[~bad, index])),
            n_features=len(feature_names),
        )

    def score(self, features: npt.ArrayLike) -> Floats:
        """Return the feature (n,) with its sign: higher = more likely cracked.

        Raises
        ------
        InputError
            When the columns (n, p) are not those of training.
        """
        values = _table(features, self.n_features)[:, self.index].astype(np.float64)
        return self.sign * np.where(np.isfinite(values), values, self.middle)

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-able values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "baselines.json") -> Self:
        """Return what `to_dict` gave; InputError when it is damaged."""
        try:
            made = cls(**{f.name: values[f.name] for f in fields(cls)})
            whole = made.sign in (1, -1) and 0 <= made.index < made.n_features
            whole = whole and math.isfinite(made.middle)
        except (KeyError, TypeError) as error:
            raise _damaged(where, "best feature", str(error)) from error
        if not whole:
            raise _damaged(where, "best feature", made.name)
        return made


@dataclass(frozen=True, kw_only=True, eq=False)
class Mahalanobis:
    """Distance of a panel's features from those of good training panels.

    d² = ‖W (z − mean)‖² of standardised features z = (x − middle) / scale, where WᵀW is the
    inverse of their covariance, shrunk as by Ledoit and Wolf (J. Multivariate Analysis 88, 2004).

    Attributes
    ----------
    kept : ndarray (k,)
        Columns in use, of ``n_features``.
    middle, scale, mean : ndarray (k,)
        Median and spread of each (from its quartiles), and mean of z.
    whitening : ndarray (k, k)
        W, lower triangular.
    shrinkage : float
        Between 0 (covariance as it is) and 1 (none but the variances' mean).
    n_panels, n_features : int
        Training panels, and columns there were.
    """

    kept: npt.NDArray[np.int64]
    middle: Floats
    scale: Floats
    mean: Floats
    whitening: Floats
    shrinkage: float
    n_panels: int
    n_features: int

    @classmethod
    def fit(cls, good: npt.ArrayLike, feature_names: Sequence[str]) -> Self:
        """Fit to good training panels (n, p).

        Features that are unknown of a panel, or the same in all, are left out.

        Raises
        ------
        InputError
            When there are fewer than two panels, or no feature is left.
        """
        values = _table(good, feature_names)
        if len(values) < 2:
            fix = "Put more good panels into training."
            raise InputError("training panels", "good ones", "at least 2", len(values), fix)
        kept = np.flatnonzero(_usable(values))
        z = np.ascontiguousarray(values[:, kept], dtype=np.float64)
        low, middle, high = np.quantile(z, [0.25, 0.5, 0.75], axis=0)
        spread = (high - low) / _NORMAL_IQR
        scale = np.where(spread > 0, spread, z.std(axis=0))
        z = (z - middle) / scale
        # The same sums, in whatever order panels come.
        z = z[np.argsort(z.view(np.dtype((np.void, z.strides[0]))).ravel())]
        mean = z.mean(axis=0)
        covariance, shrinkage = ledoit_wolf(z - mean, assume_centered=True)
        return cls(
            kept=kept,
            middle=middle,
            scale=scale,
            mean=mean,
            whitening=np.linalg.inv(np.linalg.cholesky(covariance)),
            shrinkage=float(shrinkage),
            n_panels=len(values),
            n_features=len(feature_names),
        )

    def score(self, features: npt.ArrayLike) -> Floats:
        """Return the distance (n,) of each panel; an unknown feature counts as the middle one.

        Raises
        ------
        InputError
            When the columns (n, p) are not those of training.
        """
        values = _table(features, self.n_features)
        found = np.empty(len(values))
        for start in range(0, len(values), _PANELS):
            rows = slice(start, start + _PANELS)
            x = values[rows, self.kept].astype(np.float64)
            z = (np.where(np.isfinite(x), x, self.middle) - self.middle) / self.scale
            found[rows] = np.sqrt(_squared_lengths(self.whitening, (z - self.mean).T))
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-able values."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {n: v.tolist() if isinstance(v, np.ndarray) else v for n, v in values.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "baselines.json") -> Self:
        """Return what `to_dict` gave; InputError when it is damaged."""
        try:
            kept = np.array(values["kept"], dtype=np.int64)
            parts = ("middle", "scale", "mean", "whitening")
            arrays = {name: np.array(values[name], dtype=np.float64) for name in parts}
            shrinkage = float(values["shrinkage"])
            n, p, k = int(values["n_panels"]), int(values["n_features"]), kept.size
            shapes = [arrays[name].shape for name in parts] == [(k,), (k,), (k,), (k, k)]
            whole = shapes and k > 0 and kept.ndim == 1 and 0 <= kept.min() <= kept.max() < p
            whole = whole and all(np.isfinite(array).all() for array in arrays.values())
        except (KeyError, TypeError, ValueError) as error:
            raise _damaged(where, "Mahalanobis distance", str(error)) from error
        if not whole:
            raise _damaged(where, "Mahalanobis distance", f"{k} of {p} features")
        return cls(kept=kept, shrinkage=shrinkage, n_panels=n, n_features=p, **arrays)


def _squared_lengths(lower: Floats, z: Floats) -> Floats:
    """Return ‖Lz‖² (n,) of columns z (k, n) and a lower triangular L (k, k).

    Row by row: a matrix product would round by how many columns it is given at once.
    """
    product, total = np.zeros(z.shape), np.zeros(z.shape[1])
    for j, row in enumerate(z):
        product[j:] += lower[j:, j, None] * row
        total += product[j] ** 2
    return total


def _table(features: npt.ArrayLike, columns: int | Sequence[str]) -> npt.NDArray[np.floating]:
    values = np.asarray(features)
    expected = columns if isinstance(columns, int) else len(columns)
    if values.ndim != 2 or values.shape[1] != expected:
        fix = "Use features of the version that the models were trained on."
        raise InputError("features", "columns", f"(n, {expected})", values.shape, fix)
    return values


def _usable(values: npt.NDArray[np.floating]) -> Bools:
    """Tell which columns are known of every panel and not the same in all.

    Raises
    ------
    InputError
        When none is.
    """
    usable = np.isfinite(values).all(axis=0) & (values != values[:1]).any(axis=0)
    if not usable.any():
        fix = "Run `tenfold fpcb features` again with --recompute."
        raise InputError("features", "columns", "some that are known and vary", "none", fix)
    return np.asarray(usable)


def _damaged(where: str, what: str, got: str) -> InputError:
    return InputError(where, f"damaged {what}", got=got, fix="Train again.")
