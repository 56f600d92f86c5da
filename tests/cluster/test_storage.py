import os
import pickle
import stat
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.errors import InputError
from cluster.manifest import MANIFEST, Entry, append_entry, intact, read_entries
from cluster.storage import Store
from pipelines.news.reading.sources import find_files


def test_everything_written_is_read_back(store):
    table = pa.table({"text": ["a", None], "n": [1, 2]})
    store.write_json("a.json", {"x": [1, "é"]})
    store.write_table("deep/t.parquet", table)
    store.write_arrays("r.npz", x=np.arange(3.0), gap=np.float64(1e-7))
    arrays = store.read_arrays("r.npz")
    assert store.read_json("a.json") == {"x": [1, "é"]}
    assert store.read_table("deep/t.parquet").equals(table)
    assert store.read_table("deep/t.parquet", columns=["n"]).column_names == ["n"]
    np.testing.assert_array_equal(arrays["x"], [0.0, 1.0, 2.0])
    assert arrays["gap"] == 1e-7
    assert store.list() == ["a.json", "deep/t.parquet", "r.npz"]
    assert store.list("deep/") == ["deep/t.parquet"]
    store.delete("a.json")
    store.delete("a.json")
    assert not store.exists("a.json")


def test_store_is_the_same_after_pickling(store):
    store.write_bytes("x", b"1")
    assert pickle.loads(pickle.dumps(store / "sub")) == store / "sub"
    assert pickle.loads(pickle.dumps(store)).read_bytes("x") == b"1"


def test_failed_write_leaves_the_old_file_and_nothing_else(store):
    store.write_bytes("x", b"old")
    with suppress(ZeroDivisionError), store.open_output("x") as sink:
        sink.write(b"new, but torn")
        _ = 1 / 0
    assert store.read_bytes("x") == b"old"
    assert [path.name for path in Path(store.path).iterdir()] == ["x"]


@pytest.mark.parametrize("name", ["/etc/passwd", "../x", "a/../../x", ".."])
def test_name_that_leads_out_of_the_folder_is_refused(store, name):
    for use in (store.read_bytes, store.size, store.delete, store.exists):
        with pytest.raises(InputError, match="leads out of its folder"):
            use(name)
    with pytest.raises(InputError, match="leads out"):
        store.write_bytes(name, b"")


def test_checksum_follows_the_content(store):
    store.write_bytes("x", b"a" * 5_000_000)
    before = store.checksum("x")
    store.write_bytes("x", b"a" * 4_999_999 + b"b")
    assert store.checksum("x") != before
    assert len(before) == 32


def test_pickled_objects_are_neither_written_nor_read(store):
    with pytest.raises(TypeError, match="names"):
        store.write_arrays("r.npz", names=np.array([{}], dtype=object))
    with store.open_output("evil.npz") as sink:
        np.savez(sink, x=np.array([{}], dtype=object))
    with pytest.raises(InputError, match=r"evil\.npz: damaged: got .*allow_pickle"):
        store.read_arrays("evil.npz")


def test_unwritable_folder_is_refused_with_its_name(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="output folder"):
        Store(tmp_path / "file" / "run").check_writable()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_folder_is_refused(tmp_path):
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    with pytest.raises(InputError, match="output folder"):
        Store(tmp_path).check_writable()


def test_unknown_scheme_is_refused():
    with pytest.raises(InputError, match="s3://bucket/folder"):
        Store("gopher://x/y").check_writable()


def test_s3_address_keeps_its_options_in_subfolders():
    store = Store("s3://bucket/run?endpoint_override=localhost:9&scheme=http") / "sub"
    assert store.uri == "s3://bucket/run/sub?endpoint_override=localhost:9&scheme=http"
    assert store.path == "bucket/run/sub"
    assert not store.is_local


@pytest.mark.parametrize("options", ["", "?endpoint_override=localhost:9"])
def test_address_with_credentials_is_refused_without_showing_them(options):
    with pytest.raises(InputError, match="AWS_ACCESS_KEY_ID") as refused:
        Store(f"s3://key:secret@bucket/run{options}")
    assert "secret" not in str(refused.value)
    with pytest.raises(InputError, match="AWS_ACCESS_KEY_ID"):
        find_files(f"s3://key:secret@bucket/news.csv{options}")


def test_file_address_and_path_are_the_same_folder(tmp_path):
    Store(tmp_path).write_bytes("x", b"1")
    assert Store(f"file://{tmp_path}").read_bytes("x") == b"1"


@settings(max_examples=30, deadline=None)
@given(cut=st.integers(min_value=1, max_value=60), repeat=st.booleans())
def test_torn_last_line_of_a_manifest_counts_as_not_written(tmp_path_factory, cut, repeat):
    store = Store(tmp_path_factory.mktemp("torn"))
    for key in ("00000", "00001"):
        append_entry(store, Entry(key=key, fingerprint="f", summary={"rows": 1}))
    store.write_bytes(MANIFEST, store.read_bytes(MANIFEST)[:-cut])
    kept = read_entries(store, "f")
    assert set(kept) == ({"00000", "00001"} if cut == 1 else {"00000"})
    if repeat:
        append_entry(store, Entry(key="00002", fingerprint="f"))
        assert set(read_entries(store, "f")) == {*kept, "00002"}


def test_manifest_lines_of_another_fingerprint_are_ignored(store):
    append_entry(store, Entry(key="00000", fingerprint="old"))
    assert read_entries(store, "new") == {}


def test_entry_is_intact_only_with_all_its_files(store):
    store.write_bytes("x", b"12345")
    entry = Entry(key="0", fingerprint="f", files={"x": (5, store.checksum("x"))})
    append_entry(store, entry)
    read = read_entries(store, "f").values()
    assert intact(store, read) == {"0": entry}
    store.write_bytes("x", b"54321")  # the same size
    assert intact(store, read) == {"0": entry}
    assert intact(store, read, verify=True) == {}
    store.delete("x")
    assert intact(store, read) == {}
