"""Problems and answers as files, for solvers in processes of their own."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

FloatArray = npt.NDArray[np.float64]


def save_problem(folder: Path, X: sp.csc_matrix, y: FloatArray) -> None:
    """Write ``X`` (n_samples, n_features) and ``y`` (n_samples,), or with a column a target."""
    np.save(folder / "y.npy", y)
    np.save(folder / "shape.npy", np.array(X.shape, dtype=np.int64))
    for name in ("data", "indices", "indptr"):
        np.save(folder / f"{name}.npy", getattr(X, name))


def load_problem(folder: Path) -> tuple[sp.csc_matrix, FloatArray]:
    """Return ``X`` and ``y`` as saved, writable and with the index type they had."""
    parts = tuple(np.load(folder / f"{name}.npy") for name in ("data", "indices", "indptr"))
    X = sp.csc_matrix(parts, shape=tuple(np.load(folder / "shape.npy")), copy=False)
    return X, np.load(folder / "y.npy")


def save_answers(path: Path, coefs: sp.csc_matrix, intercepts: FloatArray) -> None:
    """Write the answers of :mod:`pipelines.bench.solvers` to a file."""
    np.savez(
        path,
        data=coefs.data,
        indices=coefs.indices,
        indptr=coefs.indptr,
        shape=np.array(coefs.shape),
        intercepts=intercepts,
    )


def load_answers(path: Path) -> tuple[sp.csc_matrix, FloatArray]:
    """Return what `save_answers` wrote."""
    with np.load(path, allow_pickle=False) as file:
        parts = (file["data"], file["indices"], file["indptr"])
        return sp.csc_matrix(parts, shape=tuple(file["shape"])), file["intercepts"]
