"""A finished run folder made without Ray: the same pure steps, in one process."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from actors.lasso.engines import make_engine
from actors.lasso.unit import TRAIN, VALIDATION
from cluster.storage import Store
from pipelines.news.config import DesignConfig, NewsConfig
from pipelines.news.design.matrix import stack_counts, weigh
from pipelines.news.design.naming import name_columns
from pipelines.news.design.ngrams import NgramConfig
from pipelines.news.design.vocabulary import (
    Bucket,
    assemble_shard,
    count_shard,
    merge_bucket,
    write_texts,
    write_vocabulary,
)
from pipelines.news.dictionary import dictionary_table, write_dictionary
from pipelines.news.finished import write_manifest
from pipelines.news.fitting.path import Choice
from pipelines.news.fitting.solve import Chosen, dictionary_entries, on_fold
from pipelines.news.market.observations import Observations
from pipelines.news.model import write_model
from pipelines.news.prepare import standardise, text_groups
from pipelines.news.problem import Counted, Known, NewsProblem, solved_columns
from pipelines.news.reading.ingest import InputConfig

SPOKEN = "up down rise fall gain loss beat miss warn cut the of a profit merger"
WORDS = SPOKEN.split()


@dataclass
class FinishedRun:
    folder: str
    texts: list[str]
    problem: NewsProblem
    chosen: list[Chosen]

    def predicted(self, target):
        """Return what the solution predicts for its own rows, standardised."""
        answer = self.chosen[target]
        return self.problem.X[:, answer.support] @ answer.values + answer.intercept


def random_texts(seed, n=120):
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, rng.integers(0, 9))) for _ in range(n)]


def finish_run(folder, *, ngrams, scale="none", features=(), share=0.05, seed=0):
    """Fit two targets on random texts; the second one at alpha_max, so its dictionary is empty."""
    texts = random_texts(seed)
    rng = np.random.default_rng(seed + 1)
    raw = np.array([text.split().count("rise") - text.split().count("fall") for text in texts])
    Y = np.column_stack([5.0 + 2 * raw + rng.standard_normal(120), rng.standard_normal(120)])
    config = NewsConfig(
        input=InputConfig(news="news.csv", prices="prices.csv"),
        ngrams=ngrams,
        design=DesignConfig(scale=scale),
    )
    run = Store(folder)
    counts, names, n_blocks = _count(run / "work", texts, ngrams)
    design = weigh(
        counts,
        weighting=ngrams.weighting,
        min_df=ngrams.min_df if names is None else 1,
        max_df=ngrams.max_df if names is None else 1.0,
        scaling=scale,
    )
    values = rng.standard_normal((120, len(features)))
    known = Known(design.columns, design.idf, names)
    X, columns = solved_columns(design, known, features, values)
    Y, mean, std = standardise(Y)
    observed = Observations(
        pa.array(texts), np.zeros(120, np.int32), np.arange(120, dtype=np.int32),
        np.arange(120), Y, ["return", "log_range"], ["A"], np.arange(120), {},
    )  # fmt: skip
    roles = np.full((2, 120), TRAIN, dtype=np.int8)
    roles[0, 80:] = VALIDATION
    problem = NewsProblem(
        X=X, Y=Y, roles=roles, text_group=text_groups(observed.text), mean=mean, std=std,
        observations=observed, columns=columns, inputs=None,
        counted=Counted(run / "work" / "counted", n_blocks, ngrams.hash_bits), features=values,
    )  # fmt: skip
    chosen = [_solution(problem, 0, share), _solution(problem, 1, 1.0)]
    naming = name_columns(problem, [answer.support for answer in chosen])
    entries = [
        dictionary_entries(problem, naming, target, answer, None)
        for target, answer in enumerate(chosen)
    ]
    write_dictionary(run, dictionary_table(entries))
    write_model(run, config, problem, chosen)
    write_manifest(run, {})
    return FinishedRun(str(folder), texts, problem, chosen)


def _solution(problem, target, share):
    lasso = on_fold(problem, target, problem.n_folds)
    alpha = share * lasso.alpha_max()
    solution = make_engine("newton").solve_path(lasso, [alpha], tol=1e-10)
    coef = solution.coefs[:, [0]]
    return Chosen(
        Choice(0, 1.0, 0.1), alpha, coef.indices.astype(np.int64), coef.data,
        float(solution.intercepts[0]), float(solution.gaps[0]), {},
    )  # fmt: skip


def _count(store, texts, ngrams):
    shards = write_texts(store, pa.array(texts, pa.string()), 50)
    counted, merged, rows = store / "counted", store / "merged", store / "rows"
    for shard in shards:
        count_shard(shard, counted, texts=store, config=ngrams)
    n_blocks, n_buckets = shards[-1].stop, shards[0].n_buckets
    names, n_columns = None, 1 << ngrams.hash_bits
    if not ngrams.hash_bits:
        for number in range(n_buckets):
            bucket = Bucket(number, n_blocks)
            merge_bucket(bucket, merged, counted=counted, config=ngrams, n_texts=len(texts))
        table = write_vocabulary(merged, n_buckets)
        names, n_columns = table["ngram"].combine_chunks(), table.num_rows
    known = None if ngrams.hash_bits else merged
    files = []
    for shard in shards:
        summary = assemble_shard(shard, rows, counted=counted, vocabulary=known, config=ngrams)
        files += summary["files"]
    return stack_counts((rows.read_arrays(name) for name in files), n_columns), names, n_blocks


EXACT = NgramConfig(ngram_max=2)
