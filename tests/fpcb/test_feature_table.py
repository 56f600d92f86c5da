"""The table of features: one entry a column, and a version that follows it."""

import dataclasses

from cluster.fingerprint import fingerprint
from pipelines.fpcb.features import table
from pipelines.fpcb.features.series import STATISTICS
from pipelines.fpcb.features.table import CODE_VERSION, COLUMNS, FEATURE_VERSION, KEY_SERIES, names


def test_table_names_each_column_once_and_says_what_it_is():
    for level in ("frame", "panel", "map"):
        assert len(set(names(level))) == len(names(level)) > 0
    for column in COLUMNS:
        assert all(dataclasses.astuple(column)), column


def test_table_has_every_statistic_of_every_key_series():
    assert set(KEY_SERIES) <= set(names("frame"))
    assert {f"{s}_{t}" for s in KEY_SERIES for t in STATISTICS} <= set(names("panel"))


def test_names_end_in_the_unit_of_the_column():
    suffixes = {
        "px": "_px", "m": "_m", "deg": "_deg", "rad": "_rad", "px/s": "_px_s", "m/s": "_m_s",
        "px/s²": "_px_s2", "m/s²": "_m_s2", "deg/s": "_deg_s", "1/px": "_per_px", "1/m": "_per_m",
    }  # fmt: skip
    for column in COLUMNS:
        if column.level == "frame" and column.unit in suffixes:
            assert column.name.endswith(suffixes[column.unit]), column


def test_version_follows_code_and_table():
    assert f"{CODE_VERSION}-{fingerprint(COLUMNS)[:8]}" == FEATURE_VERSION
    changed = (dataclasses.replace(COLUMNS[0], formula="another"), *COLUMNS[1:])
    assert fingerprint(changed) != fingerprint(table.COLUMNS)
