"""Score new texts with the dictionary of a run, and say what each word contributed."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import scipy.sparse as sp

from cluster.errors import InputError
from cluster.lock import hold
from cluster.progress import Progress
from cluster.storage import Store
from pipelines.news.model import SentimentModel, read_model
from pipelines.news.prepare import say
from pipelines.news.reading.ingest import read_texts

BLOCK_ROWS = 20_000
SCORES, WORDS, REJECTS = "scores.parquet", "words.parquet", "rejects.parquet"


@dataclass(frozen=True, kw_only=True)
class ScoreConfig:
    """Which texts are scored, and where the scores go."""

    news: str | None = field(
        default=None,
        metadata={"help": "Texts: a file, folder or glob (Parquet, CSV, JSON lines)."},
    )
    text: str | None = field(default=None, metadata={"help": "One text to score and explain."})
    text_column: str = field(default="text", metadata={"help": "Column with the text."})
    bad_rows: str = field(
        default="error", metadata={"help": "What to do about bad rows: error, or drop and list."}
    )
    out: str | None = field(
        default=None, metadata={"help": "Folder for the scores; default RUN/scores."}
    )

    def __post_init__(self) -> None:
        if (self.news is None) == (self.text is None):
            raise InputError("--news, --text", "one of the two is needed", fix="Pass one of them.")
        if self.bad_rows not in ("error", "drop"):
            raise InputError("--bad-rows", "unknown", "error or drop", self.bad_rows)


def explain_text(folder: str, text: str) -> list[dict[str, Any]]:
    """Return a row per target and dictionary word of ``text``, largest contribution first.

    Contributions add up, with the intercept, to the score in standard deviations of the target; the
    raw score is in the target's own unit.
    """
    model = read_model(Store(folder))
    rows = []
    for target, (shares, words) in model.contributions([text]).items():
        score = float(model.standardised(target, shares)[0])
        found = shares.tocoo()
        order = np.argsort(-np.abs(found.data), kind="stable")
        rows.append(
            {
                "target": target,
                "score": score,
                "raw": score * model.targets[target]["std"] + model.targets[target]["mean"],
                "words": [
                    {"ngram": words[found.col[i]], "contribution": float(found.data[i])}
                    for i in order
                ],
            }
        )
    return rows


def score_texts(folder: str, config: ScoreConfig) -> dict[str, Any]:
    """Score every text of ``config.news``, block by block.

    Writes ``scores.parquet`` (file, row, a standardised score ``TARGET`` and ``TARGET_raw`` in the
    target's unit), ``words.parquet`` (file, row, target, ngram, contribution: each word's share)
    and ``rejects.parquet`` when rows were dropped.
    """
    assert config.news is not None
    run = Store(folder)
    model = read_model(run)
    if model.observations == "days":
        say(
            "note: this run's observations are days: join the texts of a ticker and session by "
            "line breaks, or scores will be smaller than those that were fitted"
        )
    table, rejects = read_texts(config.news, config.text_column, config.bad_rows)
    out = Store(config.out) if config.out else run / "scores"
    blocks = range(0, table.num_rows, BLOCK_ROWS)
    scored: list[pa.Table] = []
    with (
        hold(out),
        out.open_output(WORDS) as sink,
        Progress("score", table.num_rows, "texts") as progress,
    ):
        writer: pq.ParquetWriter | None = None
        for start in blocks:
            block = table.slice(start, BLOCK_ROWS)
            scores, words = _score_block(model, block)
            scored.append(scores)
            writer = writer or pq.ParquetWriter(sink, words.schema, compression="zstd")
            writer.write_table(words)
            progress.advance(block.num_rows)
        if writer is not None:
            writer.close()
    out.write_table(SCORES, pa.concat_tables(scored))
    if len(rejects):
        out.write_table(REJECTS, rejects.table())
    return {
        "scores": f"{out.uri}/{SCORES}",
        "words": f"{out.uri}/{WORDS}",
        "texts": table.num_rows,
        "rejected": len(rejects),
        "targets": list(model.targets),
    }


def _score_block(model: SentimentModel, block: pa.Table) -> tuple[pa.Table, pa.Table]:
    place = {
        "file": block["file"].cast(pa.string()).combine_chunks(),
        "row": block["row"].combine_chunks(),
    }
    columns: dict[str, Any] = dict(place)
    words: list[pa.Table] = [_word_rows(place, "", sp.csr_matrix((block.num_rows, 0)), [])]
    for target, (shares, names) in model.contributions(block["text"].to_pylist()).items():
        score = model.standardised(target, shares)
        columns[target] = score
        columns[f"{target}_raw"] = (
            score * model.targets[target]["std"] + model.targets[target]["mean"]
        )
        words.append(_word_rows(place, target, shares, names))
    return pa.table(columns), pa.concat_tables(words)


def _word_rows(
    place: dict[str, pa.Array], target: str, shares: sp.csr_matrix, names: list[str]
) -> pa.Table:
    found = shares.tocoo()
    row = pa.array(found.row.astype(np.int64))
    return pa.table(
        {
            **{name: column.take(row) for name, column in place.items()},
            "target": pa.array([target] * found.nnz, pa.string()),
            "ngram": pa.array(names, pa.string()).take(pa.array(found.col.astype(np.int64))),
            "contribution": found.data,
        }
    )
