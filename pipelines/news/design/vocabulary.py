"""Two sharded passes over the texts: document frequencies, then the design matrix.

Pass 1 counts each shard once and keeps its n-grams in hash buckets; a bucket is merged over all
shards by name, so no process ever holds more than one bucket's names. Pass 2 maps a shard's local
ids to columns. The result does not depend on how the texts were cut into shards.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import scipy.sparse as sp

from cluster.storage import Store
from pipelines.news.design.ngrams import NgramConfig, NgramCounts, count_ngrams
from pipelines.news.design.tokenizer import make_tokenizer

MAX_BUCKETS = 64
# Texts counted at a time, and their bytes: they bound a worker's memory, however many and however
# long the texts of its shard are.
BLOCK_ROWS, BLOCK_BYTES = 20_000, 8 << 20
TEXTS = "texts.parquet"
POSITIONS = "positions.npz"


@dataclass(frozen=True)
class TextShard:
    """Blocks ``first`` to ``stop`` (excluded) of the texts; names go to ``n_buckets`` buckets."""

    first: int
    stop: int
    n_buckets: int


@dataclass(frozen=True)
class Bucket:
    """Bucket ``number`` of the names of all ``n_blocks`` blocks."""

    number: int
    n_blocks: int


def write_texts(store: Store, texts: pa.Array, shard_rows: int) -> list[TextShard]:
    """Write the texts with a row group a block; return shards of about ``shard_rows`` texts."""
    ends = _block_ends(texts, min(shard_rows, BLOCK_ROWS))
    starts = np.concatenate(([0], ends[:-1]))
    table = pa.table({"text": texts})
    with (
        store.open_output(TEXTS) as sink,
        pq.ParquetWriter(sink, table.schema, compression="zstd") as writer,
    ):
        for start, end in zip(starts, ends, strict=True):
            writer.write_table(table.slice(start, end - start), row_group_size=end - start)
    first_blocks = np.flatnonzero(np.diff(starts // shard_rows, prepend=-1)).tolist()
    stops = [*first_blocks[1:], ends.size]
    n_buckets = min(ends.size, MAX_BUCKETS)
    return [
        TextShard(first, stop, n_buckets) for first, stop in zip(first_blocks, stops, strict=True)
    ]


def _block_ends(texts: pa.Array, block_rows: int) -> npt.NDArray[np.int64]:
    """Cut the texts into blocks of at most ``block_rows`` and, beyond one text, BLOCK_BYTES."""
    lengths = pc.fill_null(pc.binary_length(texts), 0).to_numpy(zero_copy_only=False)
    total = np.concatenate(([0], np.cumsum(lengths, dtype=np.int64)))
    ends = [0]
    while ends[-1] < lengths.size:
        by_bytes = int(np.searchsorted(total, total[ends[-1]] + BLOCK_BYTES, side="right")) - 1
        ends.append(max(ends[-1] + 1, min(by_bytes, ends[-1] + block_rows, lengths.size)))
    return np.array(ends[1:], dtype=np.int64)


def count_shard(
    shard: TextShard, store: Store, *, texts: Store, config: NgramConfig
) -> dict[str, object]:
    """Pass 1: count the n-grams of each block; write its counts, and its names by bucket."""
    rows, files = 0, []
    for block in range(shard.first, shard.stop):
        column = _row_group(texts, TEXTS, block)["text"]
        counts = count_ngrams(column.to_pylist(), config)
        _write_block(counts, block, shard.n_buckets, store)
        rows += len(column)
        files += [_names_file(block), _counts_file(block)]
    return {"rows": rows, "files": files}


def _write_block(counts: NgramCounts, block: int, n_buckets: int, store: Store) -> None:
    """Write one block with its names sorted into buckets, a row group each."""
    buckets = (counts.hashes % np.uint64(n_buckets)).astype(np.int64)
    order = np.argsort(buckets, kind="stable")
    rank = np.empty(order.size, dtype=np.int32)
    rank[order] = np.arange(order.size, dtype=np.int32)
    names = pa.table(
        {
            "ngram": counts.names.take(pa.array(order)),
            "hash": counts.hashes[order],
            "df": counts.document_frequencies()[order],
        }
    )
    ends = np.cumsum(np.bincount(buckets, minlength=n_buckets))
    with (
        store.open_output(_names_file(block)) as sink,
        pq.ParquetWriter(sink, names.schema, compression="zstd") as writer,
    ):
        for start, end in zip(np.concatenate(([0], ends[:-1])), ends, strict=True):
            writer.write_table(names.slice(start, end - start), row_group_size=max(end - start, 1))
    store.write_arrays(
        _counts_file(block), indptr=counts.indptr, ids=rank[counts.ids], counts=counts.counts
    )


def merge_bucket(
    bucket: Bucket, store: Store, *, counted: Store, config: NgramConfig, n_texts: int
) -> dict[str, object]:
    """Merge one bucket's names over all blocks and keep those that pass min_df and max_df."""
    tables = [
        _row_group(counted, _names_file(block), bucket.number, columns=["ngram", "df"])
        for block in range(bucket.n_blocks)
    ]
    names = pa.concat_tables(tables)
    encoded = names["ngram"].combine_chunks().dictionary_encode()
    codes = encoded.indices.to_numpy(zero_copy_only=False)
    distinct = encoded.dictionary
    df = np.bincount(codes, weights=names["df"].to_numpy(), minlength=len(distinct))
    passes = (df >= config.min_df) & (df <= config.max_df * n_texts)
    if config.protected:
        protected = pa.array(protected_ngrams(config), type=pa.string())
        passes |= pc.is_in(distinct, value_set=protected).to_numpy(zero_copy_only=False)
    kept = np.flatnonzero(passes)
    kept = kept[pc.sort_indices(distinct.take(pa.array(kept))).to_numpy()]
    rank = np.full(len(distinct), -1, dtype=np.int32)
    rank[kept] = np.arange(kept.size, dtype=np.int32)
    table = pa.table({"ngram": distinct.take(pa.array(kept)), "df": df[kept].astype(np.int64)})
    store.write_table(_bucket_file(bucket.number), table)
    ends = np.cumsum([part.num_rows for part in tables])
    store.write_arrays(_ranks_file(bucket.number), ranks=rank[codes], ends=ends)
    files = [_bucket_file(bucket.number), _ranks_file(bucket.number)]
    return {"rows": kept.size, "files": files, "distinct": len(distinct)}


def protected_ngrams(config: NgramConfig) -> list[str]:
    """Return the protected n-grams as the tokenizer writes them."""
    tokenize = make_tokenizer(config.tokenizer)
    return [" ".join(tokenize(ngram)) for ngram in config.protected]


def protected_columns(config: NgramConfig) -> npt.NDArray[np.int64]:
    """Return the hashed columns of the protected n-grams."""
    counts = count_ngrams(config.protected, config)
    names = pa.array(protected_ngrams(config), type=pa.string())
    whole = pc.is_in(counts.names, value_set=names).to_numpy(zero_copy_only=False)
    return np.unique(_hashed_columns(counts.hashes[whole], config.hash_bits))


def write_vocabulary(merged: Store, n_buckets: int) -> pa.Table:
    """Join the buckets into one vocabulary, sorted by n-gram; its row j is matrix column j."""
    tables = [merged.read_table(_bucket_file(number)) for number in range(n_buckets)]
    joined = pa.concat_tables(tables).combine_chunks()
    order = pc.sort_indices(joined, sort_keys=[("ngram", "ascending")]).to_numpy()
    position = np.empty(order.size, dtype=np.int32)
    position[order] = np.arange(order.size, dtype=np.int32)
    starts = np.cumsum([0, *(table.num_rows for table in tables)])
    merged.write_arrays(POSITIONS, position=position, starts=starts)
    return joined.take(pa.array(order)).combine_chunks()


def assemble_shard(
    shard: TextShard,
    store: Store,
    *,
    counted: Store,
    vocabulary: Store | None,
    config: NgramConfig,
) -> dict[str, object]:
    """Pass 2: write the rows of the count matrix, over vocabulary or hashed columns."""
    known = None if vocabulary is None else _KnownColumns(vocabulary, shard.n_buckets)
    rows, nonzeros, files = [], 0, []
    for block in range(shard.first, shard.stop):
        matrix = _block_matrix(counted, block, known, config)
        files.append(f"rows-{block:05d}.npz")
        store.write_arrays(
            files[-1],
            indptr=matrix.indptr.astype(np.int64),
            indices=matrix.indices.astype(np.int32),
            counts=matrix.data.astype(np.int32),
        )
        rows.append(matrix.shape[0])
        nonzeros += int(matrix.nnz)
    return {"rows": sum(rows), "files": files, "block_rows": rows, "nonzeros": nonzeros}


def _block_matrix(
    counted: Store, block: int, known: "_KnownColumns | None", config: NgramConfig
) -> sp.csr_matrix:
    """Return one block's counts over the known n-grams, or over hashed columns."""
    arrays = counted.read_arrays(_counts_file(block))
    if known is None:
        hashes = counted.read_table(_names_file(block), columns=["hash"])["hash"]
        column_of = _hashed_columns(hashes.to_numpy(), config.hash_bits)
    else:
        column_of = known.of_block(block)
    columns = column_of[arrays["ids"]]
    kept = columns >= 0
    n_rows = arrays["indptr"].size - 1
    rows = np.repeat(np.arange(n_rows), np.diff(arrays["indptr"]))[kept]
    n_columns = int(columns.max(initial=0)) + 1
    matrix = sp.coo_matrix(
        (arrays["counts"][kept], (rows, columns[kept])), shape=(n_rows, n_columns)
    ).tocsr()
    matrix.sum_duplicates()  # n-grams that hash to one column
    return matrix


class _KnownColumns:
    """Matrix columns of the blocks' local n-gram ids, without a look at their names."""

    def __init__(self, merged: Store, n_buckets: int) -> None:
        arrays = merged.read_arrays(POSITIONS)
        self._position, self._starts = arrays["position"], arrays["starts"]
        self._buckets = [merged.read_arrays(_ranks_file(number)) for number in range(n_buckets)]

    def of_block(self, block: int) -> npt.NDArray[np.int64]:
        """Return the column of each local id of ``block``; -1 for n-grams that were dropped."""
        parts = []
        for start, bucket in zip(self._starts, self._buckets, strict=False):
            ends = bucket["ends"]
            first = int(ends[block - 1]) if block else 0
            ranks = bucket["ranks"][first : int(ends[block])].astype(np.int64)
            known = ranks >= 0
            ranks[known] = self._position[ranks[known] + start]
            parts.append(ranks)
        return np.concatenate(parts)


def recover_names(
    counted: Store, n_blocks: int, columns: npt.NDArray[np.int64], bits: int
) -> dict[int, list[tuple[str, int]]]:
    """Return for each hashed column its n-grams, most frequent first, as ``(ngram, df)`` pairs."""
    wanted = np.unique(columns)
    found: list[pa.Table] = []
    for block in range(n_blocks):
        names = counted.read_table(_names_file(block))
        hashed = _hashed_columns(names["hash"].to_numpy(), bits)
        chosen = np.isin(hashed, wanted)
        found.append(
            names.select(["ngram", "df"])
            .append_column("column", pa.array(hashed))
            .filter(pa.array(chosen))
        )
    merged = (
        pa.concat_tables(found)
        .group_by(["column", "ngram"])
        .aggregate([("df", "sum")])
        .sort_by([("column", "ascending"), ("df_sum", "descending"), ("ngram", "ascending")])
    )
    names_of: dict[int, list[tuple[str, int]]] = {int(column): [] for column in wanted}
    for row in merged.to_pylist():
        names_of[row["column"]].append((row["ngram"], row["df_sum"]))
    return names_of


def _hashed_columns(hashes: npt.NDArray[np.uint64], bits: int) -> npt.NDArray[np.int64]:
    return (hashes & np.uint64((1 << bits) - 1)).astype(np.int64)


def _row_group(store: Store, name: str, number: int, columns: list[str] | None = None) -> pa.Table:
    with store.filesystem.open_input_file(f"{store.path}/{name}") as source:
        return pq.ParquetFile(source).read_row_group(number, columns=columns)


def _bucket_file(bucket: int) -> str:
    return f"bucket-{bucket:05d}.parquet"


def _ranks_file(bucket: int) -> str:
    return f"ranks-{bucket:05d}.npz"


def _names_file(block: int) -> str:
    return f"names-{block:05d}.parquet"


def _counts_file(block: int) -> str:
    return f"counts-{block:05d}.npz"
