import datetime
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import cluster.errors
import cluster.storage
from cluster.fingerprint import fingerprint


@dataclass(frozen=True)
class Settings:
    rows: int
    names: tuple[str, ...] = ()


def test_fingerprint_is_the_same_in_another_process():
    code = (
        "from cluster.fingerprint import fingerprint; import numpy as np, cluster.errors as e;"
        "print(fingerprint({'b': {1, 2, 'x'}, 'a': [1.5, None]}, np.arange(4), e))"
    )
    there = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
        env={"PYTHONHASHSEED": "77"},
    ).stdout.strip()
    here = fingerprint({"a": (1.5, None), "b": {"x", 2, 1}}, np.arange(4), cluster.errors)
    assert here == there
    assert len(here) == 16


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, "1"),
        (1, True),
        (None, "null"),
        ([1, [2]], [[1], 2]),
        ({"a": 1}, {"a": 2}),
        ({1: "a"}, {"1": "a"}),
        (b"ab", "ab"),
        (Path("a"), "a"),
        (np.arange(4), np.arange(4.0)),
        (np.zeros((2, 3)), np.zeros((3, 2))),
        (Settings(1), Settings(2)),
        (Settings(1), {"rows": 1, "names": []}),
        (datetime.date(2020, 1, 1), "2020-01-01"),
        (cluster.errors, cluster.storage),
        (fingerprint, Settings),
    ],
)
def test_different_parts_differ(one, other):
    assert fingerprint(one) != fingerprint(other)


def test_tuples_lists_and_numpy_scalars_equal_their_plain_values():
    assert fingerprint((1, 2.5)) == fingerprint([np.int64(1), np.float64(2.5)])


def test_unhashable_part_is_refused_by_name():
    with pytest.raises(TypeError, match="object"):
        fingerprint(object())
