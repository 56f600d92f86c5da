"""From files to the problem that the Lasso solves: observations, design matrix, targets, folds."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import scipy.sparse as sp

from actors.lasso.unit import TRAIN
from cluster.errors import InputError
from cluster.fingerprint import fingerprint
from cluster.meter import Meter
from cluster.nodes import Cluster
from cluster.shards import map_shards
from cluster.storage import Store
from pipelines.news import ngrams, tokenizer, vocabulary
from pipelines.news.config import AUTO_DROP_GIB, NewsConfig
from pipelines.news.early_drop import Aside, Block, BoolArray, CountedRows, drop_early
from pipelines.news.folds import make_folds, require_rows
from pipelines.news.ingest import Inputs, read_inputs
from pipelines.news.matrix import Design, Weighting, block_counts, make_weighting
from pipelines.news.observations import Observations, align
from pipelines.news.sessions import make_sessions
from pipelines.news.targets import build_targets, feature_values
from pipelines.news.twins import Twins, find_twins, name_preference

COUNTED = "counted"

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


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
    known: "Known"
    twins: Twins
    solved: IntArray
    preference: IntArray
    features: tuple[str, ...]
    feature_mean: FloatArray
    feature_std: FloatArray


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


def say(text: str) -> None:
    """Print one line of progress to stderr."""
    print(text, file=sys.stderr, flush=True)


@dataclass(frozen=True, eq=False)
class Loaded:
    """What is known before any cluster is asked for: input, observations, folds.

    Attributes
    ----------
    features : ndarray (n_samples, n_features)
    text_group, roles : as in :class:`NewsProblem`
    """

    inputs: Inputs
    observations: Observations
    features: FloatArray
    text_group: IntArray
    roles: npt.NDArray[np.int8]


def load(config: NewsConfig, meter: Meter) -> Loaded:
    """Read the files, align news with prices and lay out the folds; every bad input ends here."""
    with meter.stage("read"):
        inputs = read_inputs(config.input)
        say(
            f"read {inputs.news.num_rows:,} news and {inputs.prices.num_rows:,} price rows, "
            f"{len(inputs.rejects):,} rejected"
        )
    with meter.stage("align"):
        observations, features = _observe(config, inputs)
        text_group = text_groups(observations.text)
        roles = _roles(config, observations, text_group)
        dropped = [f"{reason} {n:,}" for reason, n in observations.dropped.items() if n]
        say(
            f"aligned {len(observations):,} observations with {observations.Y.shape[1]} targets; "
            f"dropped: {', '.join(dropped) or 'none'}"
        )
    return Loaded(inputs, observations, features, text_group, roles)


def prepare(
    config: NewsConfig, loaded: Loaded, cluster: Cluster, run: Store, meter: Meter
) -> NewsProblem:
    """Build the problem on the cluster; finished shards in ``run`` are reused."""
    with meter.stage("n-grams") as use:
        rows, names, counted, use.reused = _count(config, cluster, run, loaded.observations)
    with meter.stage("design"):
        Y, mean, std = standardise(loaded.observations.Y)
        aside = _drop_early(config, rows, Y, loaded.roles, cluster, run)
        known = Known(rows.weighting.columns, rows.weighting.idf, names)
        X, columns = _solved_columns(
            rows.design(None if aside is None else aside.kept),
            known,
            config.target.features,
            loaded.features,
        )
    problem = NewsProblem(
        X=X,
        Y=Y,
        roles=loaded.roles,
        text_group=loaded.text_group,
        mean=mean,
        std=std,
        observations=loaded.observations,
        columns=columns,
        counted=counted,
        inputs=loaded.inputs,
        features=loaded.features,
        aside=aside,
    )
    _describe(problem)
    return problem


def with_ngrams(problem: NewsProblem, kept: BoolArray) -> NewsProblem:
    """Return the problem with the n-grams ``kept`` in its matrix, instead of its aside's."""
    aside, old = problem.aside, problem.columns
    if aside is None:
        return problem
    design = aside.rows.design(kept)
    X, columns = _solved_columns(design, old.known, old.features, problem.features)
    aside = None if kept.all() else replace(aside, kept=kept)
    changed = replace(problem, X=X, columns=columns, aside=aside)
    _describe(changed)
    return changed


def _drop_early(
    config: NewsConfig,
    rows: CountedRows,
    Y: FloatArray,
    roles: npt.NDArray[np.int8],
    cluster: Cluster,
    run: Store,
) -> Aside | None:
    choice = config.design.early_drop
    if choice == "off" or (choice == "auto" and rows.gib <= AUTO_DROP_GIB):
        return None
    if config.path.stability:
        say("--stability solves random halves that no proof covers: every n-gram is kept")
        return None
    if config.path.multitask:
        say("--multitask solves all targets together, which no proof covers: every n-gram is kept")
        return None
    aside = drop_early(rows, Y, roles, config.path, cluster, run / "work")
    dropped = int(np.count_nonzero(~aside.kept))
    say(
        f"dropped {dropped:,} of {aside.kept.size:,} n-grams, whose products with the targets are "
        f"small (saved {aside.saved_bytes / 2**30:.2g} GiB)"
    )
    return aside if dropped else None


def _describe(problem: NewsProblem) -> None:
    design, twins = problem.columns.design.X, problem.columns.twins
    say(
        f"design matrix {design.shape[0]:,} x {design.shape[1]:,}, {design.nnz:,} non-zeros; "
        f"{design.shape[1] - twins.kept.size:,} twin columns merged"
    )


def text_groups(texts: pa.Array) -> IntArray:
    """Number equal texts equally; case, punctuation and white space do not tell texts apart."""
    folded = pc.utf8_lower(pc.utf8_normalize(texts, form="NFKC"))
    words = pc.replace_substring_regex(folded, r"[^\p{L}\p{M}\p{N}]+", " ")
    codes = pc.dictionary_encode(pc.utf8_trim_whitespace(words)).indices
    return codes.to_numpy(zero_copy_only=False).astype(np.int64)


def standardise(Y: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return the targets with mean 0 and standard deviation 1 over their defined rows."""
    mean, std = np.nanmean(Y, axis=0), np.nanstd(Y, axis=0)
    return (Y - mean) / std, mean, std


def _observe(config: NewsConfig, inputs: Inputs) -> tuple[Observations, FloatArray]:
    """Return the observations, and the numeric features of each (n_samples, n_features)."""
    days = inputs.prices["date"]
    sessions = make_sessions(config.calendar, pc.min(days).as_py(), pc.max(days).as_py())
    for option, ahead in (
        ("--horizon", config.target.horizon),
        ("--lags", config.calendar.lags),
    ):
        if ahead >= len(sessions):
            expected = f"less than the {len(sessions)} sessions of the prices"
            raise InputError(option, "too far ahead", expected, ahead, "Pass a smaller number.")
    targets = build_targets(inputs.prices, sessions, config.target, config.calendar.lags)
    observations = align(inputs.news, targets, sessions, config.design.observations)  # type: ignore[arg-type]
    if not config.target.features:
        return observations, np.zeros((len(observations), 0))
    values, _ = feature_values(inputs.prices, sessions, config.target.features)
    features = values[observations.ticker, observations.session]
    for name, column in zip(config.target.features, features.T, strict=True):
        known = column[np.isfinite(column)]
        if not known.size or np.ptp(known) == 0:
            fix = f"Leave {name} out of --features."
            raise InputError("--features", f"{name} is constant or missing", fix=fix)
    return observations, features


def _roles(
    config: NewsConfig, observations: Observations, text_group: IntArray
) -> npt.NDArray[np.int8]:
    folds = make_folds(
        config.folds,
        session=observations.session.astype(np.int64),
        ticker=observations.ticker.astype(np.int64),
        text_group=text_group,
        embargo=config.embargo,
    )
    for column, name in enumerate(observations.target_names):
        defined = np.isfinite(observations.Y[:, column])
        for fold, fold_roles in enumerate(folds):
            require_rows(fold_roles[defined], fold, name)
    everything = np.full((1, len(observations)), TRAIN, dtype=np.int8)
    return np.concatenate((folds, everything))


def _count(
    config: NewsConfig, cluster: Cluster, run: Store, observations: Observations
) -> tuple[CountedRows, pa.Array | None, Counted, bool]:
    """Run both passes over the texts.

    Returns the counted rows, the names of their n-grams if exact, where the counted blocks are, and
    whether all of them had been counted before.
    """
    options, n_texts = config.ngrams, len(observations)
    digest = _text_digest(observations.text)
    key = fingerprint(digest, options, config.design.shard_rows, ngrams, tokenizer, vocabulary)
    # What other texts or options left in this run folder must never be taken for ours.
    store = run / "work" / f"ngrams-{key}"
    shards = vocabulary.write_texts(store, observations.text, config.design.shard_rows)
    n_blocks = shards[-1].stop
    counted = map_shards(
        cluster,
        partial(vocabulary.count_shard, texts=store, config=options),
        shards,
        store / COUNTED,
        fingerprint=key,
        verify=True,
        label="count n-grams",
    )
    names, known, table = None, None, None
    n_columns = 1 << options.hash_bits
    if not options.hash_bits:
        known = store / "merged"
        buckets = [vocabulary.Bucket(number, n_blocks) for number in range(shards[0].n_buckets)]
        map_shards(
            cluster,
            partial(
                vocabulary.merge_bucket,
                counted=store / COUNTED,
                config=options,
                n_texts=n_texts,
            ),
            buckets,
            known,
            fingerprint=key,
            verify=True,
            label="merge vocabulary",
        )
        table = vocabulary.write_vocabulary(known, len(buckets))
        names, n_columns = table["ngram"].combine_chunks(), table.num_rows
        if n_columns == 0:
            raise InputError(
                "--min-df, --max-df",
                "no n-gram is left",
                expected=f"n-grams in {options.min_df} to {options.max_df:.0%} of {n_texts} texts",
                fix="Lower --min-df or raise --max-df.",
            )
    assembled = map_shards(
        cluster,
        partial(
            vocabulary.assemble_shard,
            counted=store / COUNTED,
            vocabulary=known,
            config=options,
        ),
        shards,
        store / "rows",
        fingerprint=key,
        verify=True,
        label="assemble matrix",
    )
    sizes = [rows for part in assembled.summaries for rows in part["block_rows"]]
    starts = np.cumsum([0, *sizes[:-1]]).tolist()
    blocks = [Block(*pair) for pair in zip(assembled.files, starts, strict=True)]
    weighting = _weighting(options, store / "rows", blocks, n_texts, table)
    rows = CountedRows(
        store=store / "rows",
        blocks=blocks,
        n_rows=n_texts,
        n_columns=n_columns,
        weighting=weighting,
        scaling=config.design.scale,
        key=key,
    )
    found = Counted(store / COUNTED, n_blocks, options.hash_bits)
    return rows, names, found, counted.reused == len(shards)


def _weighting(
    options: ngrams.NgramConfig,
    rows: Store,
    blocks: Sequence[Block],
    n_texts: int,
    table: pa.Table | None,
) -> Weighting:
    """Return the weighting of the vocabulary ``table``, or of hashed columns."""
    if table is not None:  # min_df and max_df have been applied, name by name
        df = table["df"].to_numpy()
        return make_weighting(df, n_texts, weighting=options.weighting, min_df=1, max_df=1.0)
    df = np.zeros(1 << options.hash_bits, dtype=np.int64)
    for block in blocks:
        counts = block_counts(rows.read_arrays(block.name), df.size)
        df += np.bincount(counts.indices, minlength=df.size)
    return make_weighting(
        df,
        n_texts,
        weighting=options.weighting,
        min_df=options.min_df,
        max_df=options.max_df,
        protected=vocabulary.protected_columns(options),
    )


def _text_digest(texts: pa.Array) -> str:
    """Fingerprint the texts themselves, whatever buffers hold them."""
    sink = pa.BufferOutputStream()
    batch = pa.record_batch({"text": texts})
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return fingerprint(sink.getvalue().to_pybytes())


def _solved_columns(
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
