"""The design matrix on a CUDA device: sparse x dense-block products in float64 for many alphas."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch

from actors.lasso.design import Measured
from actors.lasso.problem import FloatArray, IntArray, LassoProblem

# Memory of the dense columns whose products with the sparse ones make a Gram matrix.
DENSE_BYTES = 2**30


class DeviceMatrix:
    """``X`` (n_samples, n_features) and its transpose in CSR on the device, in float64."""

    def __init__(self, X: sp.csc_matrix, device: torch.device) -> None:
        self.source, self.device = X, device
        # CSC arrays of X are the CSR arrays of its transpose.
        self.transposed = _csr(X.indptr, X.indices, X.data, X.shape[::-1], device)
        by_row = X.tocsr()
        self.plain = _csr(by_row.indptr, by_row.indices, by_row.data, X.shape, device)

    def rows_of(self, columns: IntArray) -> torch.Tensor:
        """Return the transpose of some columns, CSR (k, n_samples)."""
        part = self.source[:, columns]
        shape = (columns.size, self.source.shape[0])
        return _csr(part.indptr, part.indices, part.data, shape, self.device)


@dataclass(frozen=True, eq=False)
class _Constants:
    """What the products of one problem need, on the device."""

    rows: torch.Tensor  # (n_samples, 1), bool
    weights: torch.Tensor  # (n_samples, 1)
    y_centred: torch.Tensor  # (n_samples, 1)
    basis: torch.Tensor  # (n_samples, q)
    loadings: torch.Tensor  # (q, n_features)
    inverse_penalty: torch.Tensor | None  # (n_features, 1), 0 where unpenalised or excluded


class TorchDesign:
    """:class:`actors.lasso.design.Design` by PyTorch's sparse products in float64.

    What it measures steers the solver; the certificate is measured again on the host.
    """

    certifies = False

    def __init__(
        self, problems: Sequence[LassoProblem], matrix: DeviceMatrix, dtype: torch.dtype
    ) -> None:
        self._problems, self._matrix, self._dtype = problems, matrix, dtype
        self._constants: dict[int, _Constants] = {}
        self._columns: dict[int, IntArray] = {}
        self._grams: dict[int, torch.Tensor] = {}

    def extend(self, problem: int, columns: IntArray) -> None:
        """See :class:`actors.lasso.design.Design`."""
        old = self._columns.get(problem, np.zeros(0, dtype=np.int64))
        self._columns[problem] = every = np.concatenate((old, columns))
        gram = self._tensor(np.zeros((every.size, every.size)))
        if old.size:
            gram[: old.size, : old.size] = self._grams[problem]
        if columns.size:
            block = self._products(problem, every, columns)
            gram[:, old.size :] = block
            gram[old.size :, : old.size] = block[: old.size].T
        self._grams[problem] = gram

    def release(self, problem: int) -> None:
        """See :class:`actors.lasso.design.Design`."""
        for held in (self._grams, self._columns, self._constants):
            held.pop(problem, None)

    def grams(self, problems: Sequence[int], size: int) -> torch.Tensor:
        """See :class:`actors.lasso.design.Design`."""
        shape = (len(problems), size, size)
        padded = torch.zeros(shape, dtype=self._dtype, device=self._matrix.device)
        for at, problem in enumerate(problems):
            gram = self._grams[problem]
            padded[at, : len(gram), : len(gram)] = gram.to(self._dtype)
        return padded

    def measure(
        self, problem: int, columns: IntArray, values: FloatArray, alphas: FloatArray
    ) -> Measured:
        """See :class:`actors.lasso.design.Design`."""
        source, fixed = self._problems[problem], self._on_device(problem)
        coefs = self._tensor(np.zeros((source.X.shape[1], alphas.size)))
        coefs[self._index(columns)] = self._tensor(values.T)
        fitted = self._matrix.plain @ coefs
        if fixed.basis.shape[1]:
            fitted = fitted - fixed.basis @ (fixed.loadings @ coefs)
        residual = torch.where(fixed.rows, fixed.y_centred - fitted, 0.0)
        weighted = fixed.weights * residual
        correlations = self._matrix.transposed @ weighted
        strength = correlations.clamp(min=0.0) if source.positive else correlations.abs()
        if fixed.inverse_penalty is not None:
            strength = strength * fixed.inverse_penalty
        bound = self._tensor(alphas * source.n)
        residual2 = (weighted * residual).sum(0)
        fit = (weighted * fixed.y_centred).sum(0) - residual2
        excess = strength.amax(0) / bound
        scale = 1.0 / excess.clamp(min=1.0)
        used = np.flatnonzero(values.any(axis=0))
        l1_norm = np.array([source.l1_norm(columns[used], row) for row in values[:, used]])
        gap = 0.5 * residual2 * (1.0 - scale) ** 2 + bound * self._tensor(l1_norm) - scale * fit
        gaps = gap.clamp(min=0.0) / source.y_norm2 if source.y_norm2 > 0 else torch.zeros_like(gap)
        score = (strength / bound).amax(1)

        def gradients(at: IntArray) -> FloatArray:
            return correlations[self._index(at)].T.cpu().numpy()

        return Measured(gaps.cpu().numpy(), residual2.cpu().numpy(), score.cpu().numpy(), gradients)

    def _products(self, problem: int, every: IntArray, new: IntArray) -> torch.Tensor:
        """Return the Gram matrix's columns ``new`` (k, k_new)."""
        fixed, left = self._on_device(problem), self._matrix.rows_of(every)
        at, to = self._index(every), self._index(new)
        step = max(1, DENSE_BYTES // (8 * self._problems[problem].y.size))
        parts = []
        for first in range(0, new.size, step):
            dense = self._matrix.rows_of(new[first : first + step]).to_dense().T
            parts.append(left @ (fixed.weights * dense).contiguous())
        return torch.cat(parts, 1) - fixed.loadings[:, at].T @ fixed.loadings[:, to]

    def _on_device(self, problem: int) -> _Constants:
        if problem not in self._constants:
            source = self._problems[problem]
            inverse = None
            if source.penalty_weights is not None and source.penalised is not None:
                u = np.where(source.penalised, source.penalty_weights, np.inf)
                inverse = self._tensor((1.0 / u)[:, None])
            self._constants[problem] = _Constants(
                rows=torch.tensor(source.rows[:, None], device=self._matrix.device),
                weights=self._tensor(source.row_weights[:, None]),
                y_centred=self._tensor(source.y_centred[:, None]),
                basis=self._tensor(source.basis),
                loadings=self._tensor(source.loadings),
                inverse_penalty=inverse,
            )
        return self._constants[problem]

    def _tensor(self, values: FloatArray) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.float64, device=self._matrix.device)

    def _index(self, values: IntArray) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.int64, device=self._matrix.device)


def _csr(
    indptr: IntArray,
    indices: IntArray,
    data: FloatArray,
    shape: tuple[int, int],
    device: torch.device,
) -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse ", category=UserWarning)
        return torch.sparse_csr_tensor(
            torch.tensor(indptr, dtype=torch.int32),
            torch.tensor(indices, dtype=torch.int32),
            torch.tensor(data, dtype=torch.float64),
            size=shape,
            check_invariants=False,
        ).to(device)
