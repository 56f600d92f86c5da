"""Two dictionaries compared, word by word and twin by twin."""

import numpy as np
import pandas as pd
import pytest

from cluster.errors import InputError
from cluster.storage import Store
from pipelines.news.dictionary import Entries, dictionary_table, write_dictionary
from pipelines.news.diff import diff_dictionaries
from pipelines.news.finished import write_manifest
from pipelines.news.model import MODEL


def make_run(folder, words_of):
    """Write a run of ``{target: {ngram: (coef, aliases)}}``; a target may have no words."""
    run = Store(folder)
    parts = [
        Entries(
            target=target,
            ngrams=list(words),
            coef=np.array([coef for coef, _ in words.values()], dtype=float),
            df=np.ones(len(words), dtype=np.int64),
            aliases=[aliases for _, aliases in words.values()],
            stability=None,
            gap=0.0,
            columns=np.arange(len(words)),
        )
        for target, words in words_of.items()
    ]
    write_dictionary(run, dictionary_table(parts))
    run.write_json(MODEL, {"targets": {target: {} for target in words_of}})
    write_manifest(run, {})
    return str(folder)


def compare(tmp_path, left, right):
    return diff_dictionaries(make_run(tmp_path / "a", left), make_run(tmp_path / "b", right))


def as_dict(words):
    return {(w.target, w.ngram): (w.coef_a, w.coef_b) for w in words.itertuples()}


def test_words_of_either_side_are_listed_by_their_change(tmp_path):
    left = {"return": {"up": (1.0, []), "down": (-1.0, []), "flat": (0.25, []), "x": (0.5, [])}}
    right = {"return": {"up": (1.5, []), "down": (0.5, []), "new": (-0.75, []), "x": (0.5, [])}}
    words, summary = compare(tmp_path, left, right)
    assert words["ngram"].tolist() == ["down", "new", "up", "flat", "x"]
    assert words["change"].tolist() == [1.5, -0.75, 0.5, -0.25, 0.0]
    assert as_dict(words)["return", "new"] == (0.0, -0.75)
    (row,) = summary
    assert (row["words_a"], row["words_b"], row["common"]) == (4, 4, 3)
    assert row["overlap"] == pytest.approx(3 / 5)
    assert row["sign_flips"] == 1
    assert row["correlation"] == pytest.approx(np.corrcoef([1, -1, 0.5], [1.5, 0.5, 0.5])[0, 1])


def test_a_run_equals_itself(tmp_path):
    same = {"return": {"up": (1.0, ["up up"]), "down": (-1.0, []), "x": (0.5, [])}}
    words, (row,) = compare(tmp_path, same, same)
    assert (words["change"] == 0).all()
    assert (row["overlap"], row["correlation"], row["sign_flips"]) == (1.0, pytest.approx(1.0), 0)


@pytest.mark.parametrize(
    ("mine", "other"),
    [
        ({"profit warning": (2.0, ["warning"])}, {"warning": (3.0, ["profit warning"])}),
        ({"profit warning": (2.0, ["warning"])}, {"warning": (3.0, [])}),
        ({"profit warning": (2.0, [])}, {"warning": (3.0, ["a", "profit warning"])}),
    ],
)
def test_twins_that_swapped_their_name_are_one_word(tmp_path, mine, other):
    words, (row,) = compare(tmp_path, {"return": mine}, {"return": other})
    assert as_dict(words) == {("return", "profit warning"): (2.0, 3.0)}
    assert row["common"] == 1


def test_words_that_became_one_are_added_up(tmp_path):
    left = {"return": {"profit warning": (2.0, ["warning"])}}
    right = {"return": {"profit warning": (1.5, []), "warning": (0.25, [])}}
    words, _ = compare(tmp_path, left, right)
    assert as_dict(words) == {("return", "profit warning"): (2.0, 1.75)}


def test_targets_are_kept_apart_and_one_that_is_not_shared_is_left_out(tmp_path):
    left = {"return": {"up": (1.0, [])}, "log_range": {"up": (2.0, [])}, "only a": {"z": (1.0, [])}}
    right = {"log_range": {"up": (5.0, [])}, "return": {"up": (1.0, [])}}
    words, summary = compare(tmp_path, left, right)
    assert as_dict(words) == {("log_range", "up"): (2.0, 5.0), ("return", "up"): (1.0, 1.0)}
    assert [row["target"] for row in summary] == ["return", "log_range"]


@pytest.mark.parametrize("empty_side", ["a", "b", "both"])
def test_a_target_without_words_on_one_side_is_still_compared(tmp_path, empty_side):
    full = {"return": {"up": (1.0, [])}, "log_range": {"rise": (2.0, []), "fall": (1.0, [])}}
    empty = {"return": {"up": (1.0, [])}, "log_range": {}}
    left = full if empty_side == "b" else empty
    right = full if empty_side == "a" else empty
    words, summary = compare(tmp_path, left, right)
    listed = words[words["target"] == "log_range"]
    assert len(listed) == (0 if empty_side == "both" else 2)
    row = summary[1]
    assert (row["target"], row["common"], row["correlation"]) == ("log_range", 0, None)
    assert row["overlap"] == (1.0 if empty_side == "both" else 0.0)


def test_runs_without_any_word_are_equal(tmp_path):
    words, (row,) = compare(tmp_path, {"return": {}}, {"return": {}})
    assert len(words) == 0
    assert isinstance(words, pd.DataFrame)
    assert row["overlap"] == 1.0


def test_runs_without_a_common_target_are_refused(tmp_path):
    with pytest.raises(InputError, match="no target in common"):
        compare(tmp_path, {"return": {"up": (1.0, [])}}, {"log_range": {"up": (1.0, [])}})
    with pytest.raises(InputError, match="no target in common"):
        compare(tmp_path / "empty", {"return": {}}, {"log_range": {}})


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(InputError, match="no finished news run"):
        diff_dictionaries(str(tmp_path), str(tmp_path))
