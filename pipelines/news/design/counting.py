"""The two passes over the texts: n-grams counted and merged on the cluster, rows assembled."""

from collections.abc import Sequence
from functools import partial

import numpy as np
import pyarrow as pa

from cluster.errors import InputError
from cluster.fingerprint import fingerprint
from cluster.nodes import Cluster
from cluster.shards import map_shards
from cluster.storage import Store
from pipelines.news.config import NewsConfig
from pipelines.news.design import ngrams, tokenizer, vocabulary
from pipelines.news.design.early_drop import Block, CountedRows
from pipelines.news.design.matrix import Weighting, block_counts, make_weighting
from pipelines.news.market.observations import Observations
from pipelines.news.problem import Counted


def count_and_assemble(
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
    blocks_of_texts = store / "counted"
    counted = map_shards(
        cluster,
        partial(vocabulary.count_shard, texts=store, config=options),
        shards,
        blocks_of_texts,
        fingerprint=key,
        verify=True,
        label="count n-grams",
    )
    names, known, table = None, None, None
    n_columns = 1 << options.hash_bits
    if not options.hash_bits:
        known = store / "merged"
        buckets = [vocabulary.Bucket(number, n_blocks) for number in range(shards[0].n_buckets)]
        table = _merge(cluster, options, blocks_of_texts, known, buckets, n_texts, key)
        names, n_columns = table["ngram"].combine_chunks(), table.num_rows
    assembled = map_shards(
        cluster,
        partial(
            vocabulary.assemble_shard,
            counted=blocks_of_texts,
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
    found = Counted(blocks_of_texts, n_blocks, options.hash_bits)
    return rows, names, found, counted.reused == len(shards)


def _merge(
    cluster: Cluster,
    options: ngrams.NgramConfig,
    counted: Store,
    known: Store,
    buckets: Sequence[vocabulary.Bucket],
    n_texts: int,
    key: str,
) -> pa.Table:
    """Write the vocabulary of the blocks in ``counted`` to ``known``; return it."""
    map_shards(
        cluster,
        partial(vocabulary.merge_bucket, counted=counted, config=options, n_texts=n_texts),
        buckets,
        known,
        fingerprint=key,
        verify=True,
        label="merge vocabulary",
    )
    table = vocabulary.write_vocabulary(known, len(buckets))
    if table.num_rows == 0:
        raise InputError(
            "--min-df, --max-df",
            "no n-gram is left",
            expected=f"n-grams in {options.min_df} to {options.max_df:.0%} of {n_texts} texts",
            fix="Lower --min-df or raise --max-df.",
        )
    return table


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
