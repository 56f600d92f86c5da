"""The dictionary: chosen n-grams with their weights, frequencies, aliases, stability and proof."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cluster.storage import Store

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

SCHEMA = pa.schema(
    [
        ("target", pa.string()),
        ("ngram", pa.string()),
        ("coef", pa.float64()),
        ("df", pa.int64()),
        ("aliases", pa.list_(pa.string())),
        ("stability", pa.float64()),
        ("gap", pa.float64()),
        ("column", pa.int64()),
    ]
)


@dataclass(frozen=True, eq=False)
class Entries:
    """What one target contributes: ``k`` chosen columns.

    ``coef`` is in standard deviations of the target per unit of the weighted (not scaled) n-gram,
    or per standard deviation of a numeric feature;
    ``columns`` are vocabulary rows (or hashed columns), -1 - i for numeric feature i.
    """

    target: str
    ngrams: Sequence[str]
    coef: FloatArray
    df: IntArray
    aliases: Sequence[Sequence[str]]
    stability: FloatArray | None
    gap: float
    columns: IntArray


def dictionary_table(entries: Sequence[Entries]) -> pa.Table:
    """Return the dictionary, strongest words first within a target."""
    parts = [SCHEMA.empty_table()]
    for part in entries:
        order = np.lexsort((part.columns, -np.abs(part.coef)))
        k = len(part.ngrams)
        stability = [None] * k if part.stability is None else part.stability[order].tolist()
        parts.append(
            pa.table(
                {
                    "target": [part.target] * k,
                    "ngram": [part.ngrams[i] for i in order],
                    "coef": part.coef[order],
                    "df": part.df[order],
                    "aliases": [list(part.aliases[i]) for i in order],
                    "stability": pa.array(stability, pa.float64()),
                    "gap": np.full(k, part.gap),
                    "column": part.columns[order],
                },
                schema=SCHEMA,
            )
        )
    return pa.concat_tables(parts).combine_chunks()


def write_dictionary(run: Store, table: pa.Table) -> None:
    """Write ``dictionary.parquet`` and ``dictionary.csv`` (aliases joined by " | ")."""
    run.write_table("dictionary.parquet", table)
    run.write_bytes("dictionary.csv", dictionary_csv(table))


def dictionary_csv(table: pa.Table) -> bytes:
    """Return a dictionary as CSV, without its ``column``."""
    text = io.StringIO()
    names = [name for name in table.column_names if name != "column"]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    for row in table.select(names).to_pylist():
        row["aliases"] = " | ".join(row["aliases"])
        writer.writerow(["" if row[name] is None else row[name] for name in names])
    return text.getvalue().encode()
