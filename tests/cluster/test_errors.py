import pickle

import pytest

from cluster.errors import ConnectError, InputError, ShardsFailed, TenfoldError


def test_input_error_says_where_what_and_how_to_fix_it():
    error = InputError("news.csv", "column 'date'", "ISO dates", "'N/A'", "Fix row 311.")
    assert str(error) == "news.csv: column 'date': expected ISO dates, got 'N/A'. Fix row 311."


def test_input_error_without_contrast_is_one_sentence():
    assert str(InputError("news.csv", "no such file")) == "news.csv: no such file."


@pytest.mark.parametrize(
    "error",
    [
        InputError("a", "b", 1, 2, "Do."),
        ConnectError("a", "b", fix="Do."),
        ShardsFailed("count", {"00001": "boom"}),
    ],
)
def test_errors_survive_pickling(error):
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is type(error)
    assert str(back) == str(error)
    assert back.__dict__ == error.__dict__


def test_exit_codes_tell_bad_input_from_faults_of_ours():
    assert InputError("a", "b").exit_code == ConnectError("a", "b").exit_code == 2
    assert TenfoldError("x").exit_code == ShardsFailed("x", {}).exit_code == 1


def test_shards_failed_lists_ids_and_first_cause():
    error = ShardsFailed("count", {f"{k:05d}": f"cause {k}" for k in range(12)})
    assert "12 failed (00000, " in str(error)
    assert "and 2 more" in str(error)
    assert "cause 0" in str(error)
