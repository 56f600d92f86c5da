"""N-grams of one shard of texts: tokens, counts, local names; all array work after the tokenizer.

A shard keeps n-grams under local ids. Names meet across shards only in the vocabulary, so a shard's
memory is bounded by its own texts.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cluster.errors import InputError
from pipelines.news.design.tokenizer import BREAK, TOKENIZERS, make_tokenizer, normalised

MAX_ORDER = 8


@dataclass(frozen=True, kw_only=True)
class NgramConfig:
    """How texts become columns."""

    tokenizer: str = field(
        default="word", metadata={"help": f"Words: {', '.join(TOKENIZERS)}.", "panel": "N-grams"}
    )
    ngram_min: int = field(
        default=1, metadata={"help": "Shortest n-gram, in words.", "panel": "N-grams"}
    )
    ngram_max: int = field(
        default=3, metadata={"help": "Longest n-gram, in words.", "panel": "N-grams"}
    )
    min_df: int = field(
        default=2,
        metadata={"help": "Drop n-grams in fewer observations than this.", "panel": "N-grams"},
    )
    max_df: float = field(
        default=1.0,
        metadata={
            "help": "Drop n-grams in more than this share of observations.",
            "panel": "N-grams",
        },
    )
    stop_words: tuple[str, ...] = field(
        default=(),
        metadata={
            "help": "Words left out before n-grams are formed: comma list, or @file.",
            "panel": "N-grams",
        },
    )
    protected: tuple[str, ...] = field(
        default=(),
        metadata={
            "help": "N-grams that survive min_df and max_df: comma list, or @file.",
            "panel": "N-grams",
        },
    )
    weighting: str = field(
        default="tfidf",
        metadata={
            "help": "tfidf (sublinear, rows of length 1) or counts.",
            "panel": "N-grams",
        },
    )
    hash_bits: int = field(
        default=0,
        metadata={
            "help": "Hash n-grams into 2^bits columns; 0 keeps the exact vocabulary.",
            "panel": "N-grams",
        },
    )

    def __post_init__(self) -> None:
        if self.tokenizer not in TOKENIZERS:
            raise InputError(
                "--tokenizer", "unknown", expected=" or ".join(TOKENIZERS), got=self.tokenizer
            )
        if not 1 <= self.ngram_min <= self.ngram_max <= MAX_ORDER:
            raise InputError(
                "--ngram-min, --ngram-max",
                "not a range",
                expected=f"1 <= ngram-min <= ngram-max <= {MAX_ORDER}",
                got=f"{self.ngram_min} and {self.ngram_max}",
                fix="Swap or correct the two.",
            )
        if self.min_df < 1:
            raise InputError("--min-df", "too small", expected="1 or more", got=self.min_df)
        if not 0 < self.max_df <= 1:
            raise InputError("--max-df", "not a share", expected="0 < share <= 1", got=self.max_df)
        if self.weighting not in ("tfidf", "counts"):
            raise InputError(
                "--weighting", "unknown", expected="tfidf or counts", got=self.weighting
            )
        if self.hash_bits and not 8 <= self.hash_bits <= 30:
            raise InputError("--hash-bits", "out of range", expected="8 to 30", got=self.hash_bits)


@dataclass(frozen=True, eq=False)
class NgramCounts:
    """Counts of one shard.

    Attributes
    ----------
    indptr : ndarray (n_texts + 1,), int64
    ids : ndarray (nnz,), int32
        Local n-gram ids, rising within a text.
    counts : ndarray (nnz,), int32
    names : pyarrow.StringArray (n_ngrams,)
        Words joined by one space.
    hashes : ndarray (n_ngrams,), uint64
        The same for the same n-gram in every shard.
    """

    indptr: npt.NDArray[np.int64]
    ids: npt.NDArray[np.int32]
    counts: npt.NDArray[np.int32]
    names: pa.StringArray
    hashes: npt.NDArray[np.uint64]

    def document_frequencies(self) -> npt.NDArray[np.int64]:
        """Return in how many texts of the shard each n-gram occurs (n_ngrams,)."""
        return np.bincount(self.ids, minlength=len(self.names)).astype(np.int64)


def count_ngrams(texts: Iterable[str], config: NgramConfig) -> NgramCounts:
    """Count the n-grams of ``texts``, in order."""
    tokens, rows, n_texts = _tokens(texts, config)
    spoken = pa.array(tokens, type=pa.string())
    # A break is a null, so that it is no word of the dictionary.
    spoken = pc.if_else(pc.equal(spoken, BREAK), pa.scalar(None, pa.string()), spoken)
    encoded = spoken.dictionary_encode()
    words = encoded.dictionary
    codes = pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False).astype(np.int64)
    inside = codes >= 0
    word_hashes = _word_hashes(words)

    names: list[pa.Array] = []
    hashes: list[npt.NDArray[np.uint64]] = []
    pair_rows: list[npt.NDArray[np.int64]] = []
    pair_ids: list[npt.NDArray[np.int64]] = []
    offset = 0
    # Positions where an n-gram of the current order starts, with its local id and its parts.
    starts = np.flatnonzero(inside)
    ids = codes[starts]
    order_names: pa.Array = words
    order_hashes = word_hashes
    for order in range(1, config.ngram_max + 1):
        if order > 1:
            last = starts + order - 1
            fits = last < codes.size
            starts, ids, last = starts[fits], ids[fits], last[fits]
            same = (rows[last] == rows[starts]) & inside[last]
            starts, ids, last = starts[same], ids[same], last[same]
            keys, ids = np.unique(ids * max(len(words), 1) + codes[last], return_inverse=True)
            prefix, suffix = np.divmod(keys, max(len(words), 1))
            order_names = pc.binary_join_element_wise(
                order_names.take(pa.array(prefix)), words.take(pa.array(suffix)), " "
            )
            order_hashes = _mixed(order_hashes[prefix], word_hashes[suffix])
        if order >= config.ngram_min:
            names.append(order_names)
            hashes.append(order_hashes)
            pair_rows.append(rows[starts])
            pair_ids.append(ids + offset)
            offset += len(order_names)
    indptr, local, counts = _per_text(
        np.concatenate(pair_rows), np.concatenate(pair_ids), offset, n_texts
    )
    return NgramCounts(
        indptr=indptr,
        ids=local.astype(np.int32),
        counts=counts.astype(np.int32),
        names=pa.chunked_array(names, type=pa.string()).combine_chunks(),
        hashes=np.concatenate(hashes),
    )


def _tokens(
    texts: Iterable[str], config: NgramConfig
) -> tuple[list[str], npt.NDArray[np.int64], int]:
    tokenize = make_tokenizer(config.tokenizer)
    stop_words = frozenset(normalised(word) for word in config.stop_words)
    tokens: list[str] = []
    lengths: list[int] = []
    for text in texts:
        found = tokenize(text)
        if stop_words:
            found = [token for token in found if token not in stop_words]
        tokens += found
        lengths.append(len(found))
    rows = np.repeat(np.arange(len(lengths), dtype=np.int64), lengths)
    return tokens, rows, len(lengths)


def _per_text(
    rows: npt.NDArray[np.int64], ids: npt.NDArray[np.int64], n_ids: int, n_texts: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Merge repeats within a text: CSR row pointers, ids and counts."""
    keys, counts = np.unique(rows * max(n_ids, 1) + ids, return_counts=True)
    merged_rows, merged_ids = np.divmod(keys, max(n_ids, 1))
    indptr = np.zeros(n_texts + 1, dtype=np.int64)
    np.cumsum(np.bincount(merged_rows, minlength=n_texts), out=indptr[1:])
    return indptr, merged_ids, counts


def _word_hashes(words: pa.Array) -> npt.NDArray[np.uint64]:
    digests = b"".join(
        hashlib.blake2b(word.encode(), digest_size=8).digest() for word in words.to_pylist()
    )
    return np.frombuffer(digests, dtype="<u8")


def _mixed(prefix: npt.NDArray[np.uint64], word: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Hash an n-gram from the hashes of its prefix and last word (splitmix64 finaliser)."""
    z = prefix * np.uint64(0x9E3779B97F4A7C15) + word
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
