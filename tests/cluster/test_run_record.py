"""The record of a run: what it ends with, what attempts add up to, and what it never holds."""

import json
from pathlib import Path

import pytest

from cluster.errors import InputError
from cluster.meter import Meter
from cluster.run_record import RECORD, current, public, read_record, recorded

COMMAND = ["fpcb", "generate", "--panels=3"]


@pytest.fixture(autouse=True)
def this_process_alone(monkeypatch):
    monkeypatch.setattr(Meter, "_ours", lambda _: {})


def state_after(store, error):
    def end():
        with recorded(store, COMMAND):
            assert read_record(store).state == "running"
            raise error

    with pytest.raises(type(error)):
        end()
    return read_record(store)


def test_state_is_what_the_block_ended_with(store):
    with recorded(store, COMMAND):
        pass
    assert read_record(store).state == "finished"
    assert state_after(store, KeyboardInterrupt()).state == "stopped"
    failed = state_after(store, InputError("a.csv", "column 'x'", "numbers", "'N/A'"))
    assert (failed.state, failed.error) == (
        "failed",
        "a.csv: column 'x': expected numbers, got 'N/A'.",
    )


def test_record_says_how_far_the_stage_is(store):
    with recorded(store, COMMAND) as record:
        record.say_how_far("count", 0, 9, "shards")
        assert (read_record(store).stage, read_record(store).total) == ("count", 9)
        record.say_how_far("count", 1, 9, "shards")  # a moment later: not written again
        assert read_record(store).done == 0
        record.say_how_far("solve", 2, 4, "units", ray_job="01000000")
        assert (read_record(store).done, read_record(store).ray_job) == (2, "01000000")


def test_attempts_at_one_command_add_up(store):
    first = state_after(store, KeyboardInterrupt())
    with recorded(store, COMMAND) as record:
        record.known.headline = "3 panels"
    second = read_record(store)
    assert (second.attempts, second.started, second.headline) == (2, first.started, "3 panels")
    assert second.seconds > first.seconds
    with recorded(store, [*COMMAND, "--seed=4"]):
        pass
    assert read_record(store).attempts == 1


def test_stage_within_a_run_belongs_to_its_record(store):
    with recorded(store, COMMAND) as outer, recorded(store / "data", ["fpcb", "features"]) as inner:
        assert inner is outer is current()
    assert current() is None
    assert not (store / "data").exists(RECORD)


def test_note_that_cannot_be_written_does_not_end_the_run(store):
    with recorded(store, COMMAND) as record:
        Path(store.path, RECORD).unlink()
        Path(store.path, RECORD).mkdir()
        record.say_how_far("solve", 1, 2, "units", now=True)
        Path(store.path, RECORD).rmdir()
    assert read_record(store).state == "finished"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"command": 3', '"run"', "null"])
def test_record_that_cannot_be_read_is_none(store, text):
    store.write_bytes(RECORD, text.encode())
    assert read_record(store) is None


def test_fields_of_another_version_are_passed_over(store):
    store.write_json(RECORD, {"command": COMMAND, "colour": "red"})
    assert read_record(store).command == COMMAND


def test_credentials_are_not_recorded(store):
    address = "s3://key:secret@bucket/news.parquet"
    with recorded(store, ["news", "fit", f"--news={address}"], {address: "blake2b 00"}):
        pass
    text = store.read_bytes(RECORD).decode()
    assert "secret" not in text
    assert "//…@bucket/news.parquet" in json.loads(text)["command"][2]
    assert public("--out=/plain/path") == "--out=/plain/path"
