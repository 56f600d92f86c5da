"""The dictionary's table and its CSV."""

import csv
import io

import numpy as np
import pytest

from cluster.storage import Store
from pipelines.news.dictionary import SCHEMA, Entries, dictionary_table, write_dictionary


def entries(target="return", stability=None):
    return Entries(
        target=target,
        ngrams=["a", 'b "quoted", and more', "c\u2028d", "=1+1"],
        coef=np.array([0.5, -2.0, 0.5, 1.0 / 3.0]),
        df=np.array([4, 3, 2, 1]),
        aliases=[[], ["b x", "b y"], [], []],
        stability=stability,
        gap=1e-9,
        columns=np.array([7, 1, 3, -1]),
    )


def test_words_stand_by_strength_then_column_within_their_target():
    table = dictionary_table([entries("return"), entries("log_range")])
    assert table.schema == SCHEMA
    assert table["target"].to_pylist() == ["return"] * 4 + ["log_range"] * 4
    assert table["column"].to_pylist() == [1, 3, 7, -1] * 2
    assert table["ngram"].to_pylist()[0] == 'b "quoted", and more'
    assert table["aliases"].to_pylist()[0] == ["b x", "b y"]
    assert table["df"].to_pylist()[:4] == [3, 2, 4, 1]
    assert table["stability"].null_count == 8


def test_stability_follows_its_word():
    table = dictionary_table([entries(stability=np.array([0.1, 0.2, 0.3, 0.4]))])
    assert table["stability"].to_pylist() == [0.2, 0.3, 0.1, 0.4]


def test_no_words_are_an_empty_table_of_the_same_columns():
    assert dictionary_table([]).schema == SCHEMA
    nothing = np.zeros(0)
    empty = Entries(
        "return", [], nothing, nothing.astype(int), [], nothing, 0.0, nothing.astype(int)
    )
    assert dictionary_table([empty]).num_rows == 0


@pytest.mark.parametrize("stability", [None, np.array([0.1, 0.2, 0.3, 0.4])])
def test_csv_says_what_the_table_says(tmp_path, stability):
    run = Store(tmp_path)
    table = dictionary_table([entries(stability=stability)])
    write_dictionary(run, table)
    assert run.read_table("dictionary.parquet").equals(table)
    rows = list(csv.DictReader(io.StringIO(run.read_bytes("dictionary.csv").decode())))
    assert list(rows[0]) == [name for name in SCHEMA.names if name != "column"]
    for row, wanted in zip(rows, table.to_pylist(), strict=True):
        assert row["ngram"] == wanted["ngram"]
        assert float(row["coef"]) == wanted["coef"]
        assert row["aliases"].split(" | ") == (wanted["aliases"] or [""])
        assert row["stability"] == ("" if wanted["stability"] is None else str(wanted["stability"]))
