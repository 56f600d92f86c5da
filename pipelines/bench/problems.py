"""Where the problem comes from: news and prices, files of your own, or the synthetic texts."""

import re
import tempfile
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from actors.lasso.multitask_problem import MultiTaskProblem
from actors.lasso.problem import LassoProblem
from cluster.errors import InputError
from cluster.meter import Meter
from cluster.storage import Store
from pipelines.bench.saved import save_problem
from pipelines.bench.synthetic import text_problem
from pipelines.news.config import NewsConfig
from pipelines.news.design import vocabulary
from pipelines.news.design.matrix import stack_counts, weigh
from pipelines.news.design.twins import find_twins
from pipelines.news.market.targets import TargetConfig
from pipelines.news.prepare import load, say, standardise
from pipelines.news.reading.ingest import InputConfig

FloatArray = npt.NDArray[np.float64]

DEFAULT_SIZES = "20000x200000"
SMALLEST = 50


@dataclass(frozen=True, kw_only=True)
class ProblemConfig:
    """The one problem that every solver gets."""

    data: str | None = field(
        default=None,
        metadata={"help": "Folder with news.parquet and prices.parquet: their n-grams."},
    )
    targets: tuple[str, ...] = field(
        default=("volume_change",),
        metadata={"help": "Target of --data; several are solved jointly, as one multi-task Lasso."},
    )
    matrix: str | None = field(
        default=None, metadata={"help": "Or a sparse matrix of your own (scipy .npz), with --y."}
    )
    y: str | None = field(
        default=None, metadata={"help": "Its response (.npy), or several as columns."}
    )
    synthetic: str | None = field(
        default=None,
        metadata={"help": f"Or synthetic texts, ROWSxCOLUMNS; default {DEFAULT_SIZES}."},
    )
    seed: int = field(default=0, metadata={"help": "Seed of the synthetic texts."})

    def __post_init__(self) -> None:
        given = [name for name in ("data", "matrix", "synthetic") if getattr(self, name)]
        if len(given) > 1:
            got = " and ".join(f"--{name}" for name in given)
            raise InputError(got, "more than one problem", fix="Pass one of them.")
        if (self.matrix is None) != (self.y is None):
            raise InputError("--matrix, --y", "one without the other", fix="Pass both.")
        if self.seed < 0:
            raise InputError("--seed", "negative", "0 or more", self.seed, "Pass 0.")
        if not self.targets:
            raise InputError("--targets", "empty", fix="Pass volume_change.")
        if self.synthetic is not None:
            self.sizes  # noqa: B018 - refuses what is no size
        for name in ("data", "matrix", "y"):
            path = getattr(self, name)
            if path is not None and not Path(path).exists():
                raise InputError(f"--{name}", "not found", got=path, fix="Check the path.")

    @property
    def sizes(self) -> tuple[int, int]:
        """Rows and columns of the synthetic texts."""
        text = self.synthetic or DEFAULT_SIZES
        match = re.fullmatch(r"(\d+)[x×](\d+)", text.strip())
        if match is None or min(int(number) for number in match.groups()) < SMALLEST:
            expected = f"ROWSxCOLUMNS of {SMALLEST} or more each, say {DEFAULT_SIZES}"
            raise InputError("--synthetic", "no sizes", expected, text)
        return int(match[1]), int(match[2])


@dataclass(frozen=True)
class SavedProblem:
    """A problem in a folder, as :mod:`pipelines.bench.saved` reads it."""

    folder: Path
    title: str
    n_samples: int
    n_features: int
    nonzeros: int
    alpha_max: float
    n_targets: int = 1


def stated(X: sp.csc_matrix, y: FloatArray) -> LassoProblem | MultiTaskProblem:
    """Return the problem of ``y`` (n_samples,), or the joint one of its columns."""
    return LassoProblem(X, y) if y.ndim == 1 else MultiTaskProblem(X, y)


def save(config: ProblemConfig, folder: Path) -> SavedProblem:
    """Make the problem and write it into ``folder``; rows without a response are left out.

    Raises
    ------
    InputError
        For files that cannot be read or do not fit each other, or a response nothing explains.
    """
    if config.data is not None:
        title, (X, y) = (
            f"{', '.join(config.targets)} of {Path(config.data).name}",
            _from_news(config),
        )
    elif config.matrix is not None and config.y is not None:
        title, (X, y) = Path(config.matrix).name, _from_files(config.matrix, config.y)
    else:
        sizes = config.sizes
        title = "synthetic texts"
        say(f"making synthetic texts, {sizes[0]:,} x {sizes[1]:,}")
        X, y = text_problem(*sizes, config.seed)
    alpha_max = stated(X, y).alpha_max()
    if not alpha_max > 1e-12 * float(np.abs(y).max(initial=0.0)):
        raise InputError(title, "no column correlates with the response", fix="Check the data.")
    save_problem(folder, X, y)
    say(f"{title}: {X.shape[0]:,} x {X.shape[1]:,}, {X.nnz:,} non-zeros")
    return SavedProblem(folder, title, X.shape[0], X.shape[1], int(X.nnz), alpha_max, y[0].size)


def _from_files(matrix: str, response: str) -> tuple[sp.csc_matrix, FloatArray]:
    try:
        X = sp.csc_matrix(sp.load_npz(matrix), dtype=np.float64)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        fix = "Write it by scipy.sparse.save_npz."
        raise InputError("--matrix", f"cannot read {matrix}", got=error, fix=fix) from error
    try:
        y = np.asarray(np.load(response, allow_pickle=False), dtype=np.float64)
    except (OSError, ValueError, EOFError, TypeError) as error:
        fix = "Write it by numpy.save, as numbers."
        raise InputError("--y", f"cannot read {response}", got=error, fix=fix) from error
    if y.shape[:1] != X.shape[:1] or y.ndim > 2 or not y.size:
        expected = f"shape ({X.shape[0]},) or ({X.shape[0]}, targets)"
        raise InputError("--y", "does not fit --matrix", expected, y.shape)
    if not np.isfinite(X.data).all():
        raise InputError("--matrix", "not finite", "numbers", "NaN or infinity", "Remove those.")
    y = y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y
    defined = _defined(y)
    if not defined.size:
        raise InputError("--y", "no row has finite values", fix="Check the file.")
    X.sort_indices()
    # Peers take 32-bit indices alone.
    if X.nnz <= np.iinfo(np.int32).max:
        X.indices, X.indptr = X.indices.astype(np.int32), X.indptr.astype(np.int32)
    return (X if defined.size == y.size else sp.csc_matrix(X[defined])), y[defined]


def _from_news(config: ProblemConfig) -> tuple[sp.csc_matrix, FloatArray]:
    """Build the matrix by the stages of the news job, in this process; twins are merged."""
    data = Path(str(config.data))
    news = NewsConfig(
        input=InputConfig(news=str(data / "news.parquet"), prices=str(data / "prices.parquet")),
        target=TargetConfig(targets=config.targets),
    )
    loaded = load(news, Meter())
    texts, ngrams = loaded.observations.text, news.ngrams
    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder)
        (shard,) = vocabulary.write_texts(store, texts, len(texts))
        vocabulary.count_shard(shard, store, texts=store, config=ngrams)
        for number in range(shard.n_buckets):
            bucket = vocabulary.Bucket(number, shard.stop)
            vocabulary.merge_bucket(bucket, store, counted=store, config=ngrams, n_texts=len(texts))
        known = vocabulary.write_vocabulary(store, shard.n_buckets)
        assembled = vocabulary.assemble_shard(
            shard, store, counted=store, vocabulary=store, config=ngrams
        )
        blocks = (store.read_arrays(name) for name in cast(list[str], assembled["files"]))
        counts = stack_counts(blocks, known.num_rows)
    design = weigh(counts, weighting=ngrams.weighting, min_df=1, max_df=1.0, scaling="none")
    X = sp.csc_matrix(design.X[:, find_twins(design.X).kept])
    X.sort_indices()
    Y = standardise(loaded.observations.Y)[0]
    if Y.shape[1] == 1:
        return X, Y[:, 0]
    rows = _defined(Y)
    return sp.csc_matrix(X[rows]), standardise(Y[rows])[0]


def _defined(y: FloatArray) -> npt.NDArray[np.int64]:
    """Return the rows whose every value is finite."""
    return np.flatnonzero(np.isfinite(y.reshape(y.shape[0], -1)).all(axis=1))
