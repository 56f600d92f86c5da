"""From files to the problem that the Lasso solves: observations, design matrix, targets, folds."""

import sys
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from actors.lasso.unit import TRAIN
from cluster.errors import InputError
from cluster.meter import Meter
from cluster.nodes import Cluster
from cluster.storage import Store
from pipelines.news.config import AUTO_DROP_GIB, NewsConfig
from pipelines.news.design.counting import count_and_assemble
from pipelines.news.design.early_drop import Aside, BoolArray, CountedRows, drop_early
from pipelines.news.fitting.folds import make_folds, require_rows
from pipelines.news.market.observations import Observations, align
from pipelines.news.market.sessions import make_sessions
from pipelines.news.market.targets import build_targets, feature_values
from pipelines.news.problem import Known, NewsProblem, solved_columns
from pipelines.news.reading.ingest import Inputs, read_inputs

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


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
        rows, names, counted, use.reused = count_and_assemble(
            config, cluster, run, loaded.observations
        )
    with meter.stage("design"):
        Y, mean, std = standardise(loaded.observations.Y)
        aside = _drop_early(config, rows, Y, loaded.roles, cluster, run)
        known = Known(rows.weighting.columns, rows.weighting.idf, names)
        X, columns = solved_columns(
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
    X, columns = solved_columns(design, old.known, old.features, problem.features)
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
