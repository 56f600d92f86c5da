"""Files made to run code when they are read, or to be written elsewhere: refused, and inert."""

import ast
import json
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command import tenfold

from actors.memory_bank.index import MemoryBank
from cluster.errors import InputError
from cluster.manifest import MANIFEST
from pipelines.fpcb.dataset import DESCRIPTION, FEATURES, PANELS, open_data_set
from pipelines.fpcb.detection.detectors import FILTER, _load_files
from pipelines.fpcb.dream.model import checksum

ROOT = Path(__file__).resolve().parents[1]
OURS = [path for room in ("cluster", "actors", "pipelines") for path in (ROOT / room).rglob("*.py")]
YAML = '!!python/object/apply:os.system ["touch {marker}"]'


class Payload:
    """Touches a file when it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


@pytest.fixture
def marker(tmp_path):
    """What a payload would make; that it can is shown, that it did not is checked at the end."""
    proof = tmp_path / "proof"
    pickle.loads(pickle.dumps(Payload(proof)))
    assert proof.exists()
    path = tmp_path / "hostile-code-ran"
    yield path
    assert not path.exists()


@pytest.fixture
def payload(marker):
    return pickle.dumps(Payload(marker))


def object_archive(path, marker):
    np.savez(path, x=np.array([Payload(marker)], dtype=object))
    return path.read_bytes()


def test_pickle_in_place_of_arrays_is_refused(store, payload, marker, tmp_path):
    for content in (payload, object_archive(tmp_path / "evil.npz", marker)):
        store.write_bytes("x.npz", content)
        with pytest.raises(InputError, match=r"x\.npz: damaged"):
            store.read_arrays("x.npz")


def test_pickle_in_place_of_a_detector_is_refused(store, payload, marker, tmp_path):
    for content in (payload, object_archive(tmp_path / "evil.npz", marker)):
        store.write_bytes(FILTER, content)
        with pytest.raises(InputError, match="damaged"):
            _load_files(store, checksum(content))


def test_pickle_in_place_of_a_memory_bank_is_refused(store, payload):
    bank = MemoryBank(np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32), seed=0)
    _, file = bank.save(store, "bank")
    store.write_bytes(file, payload)
    with pytest.raises(InputError, match="checksum: the index is damaged"):
        MemoryBank.load(store, "bank")
    known = store.read_json("bank.json") | {"blake2b": checksum(payload)}
    store.write_json("bank.json", known)
    store.write_bytes(f"bank.{checksum(payload)[:12]}.faiss", payload)
    with pytest.raises(InputError, match=r"index: expected one of this FAISS"):
        MemoryBank.load(store, "bank")


@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl", "yaml", "pkl", "npz"])
def test_hostile_news_are_refused(tmp_path, payload, marker, suffix):
    for content in (payload, YAML.format(marker=marker).encode()):
        path = tmp_path / f"news.{suffix}"
        path.write_bytes(content)
        outcome = tenfold("news", "fit", "--news", path, "--prices", path, "--out", tmp_path / "o")
        assert outcome.code == 2, outcome.err
        assert "Traceback" not in outcome.err
        assert str(path) in outcome.err


def test_pickle_behind_a_type_of_parquet_is_not_loaded(tmp_path, payload, store):
    class Hostile(pa.ExtensionType):
        """Says that it is one of those that old versions of pyarrow unpickled (CVE-2023-47248)."""

        def __init__(self):
            super().__init__(pa.string(), "arrow.py_extension_type")

        def __arrow_ext_serialize__(self):
            return payload

    column = pa.ExtensionArray.from_storage(Hostile(), pa.array(["a", "b"]))
    pq.write_table(pa.table({"text": column}), tmp_path / "news.parquet")
    store.write_bytes("news.parquet", (tmp_path / "news.parquet").read_bytes())
    assert store.read_table("news.parquet")["text"].to_pylist() == ["a", "b"]
    tenfold("news", "score", tmp_path, "--news", tmp_path / "news.parquet")


@pytest.mark.parametrize("part", [PANELS, FEATURES])
@pytest.mark.parametrize("name", ["../../elsewhere.parquet", "/tmp/elsewhere.parquet"])
def test_data_set_whose_files_lie_elsewhere_is_refused(store, part, name):
    known = {"n_panels": 1, "counts": {}, part: {"digest": "0", "bytes": 1, "files": {name: {}}}}
    store.write_json(DESCRIPTION, known)
    with pytest.raises(InputError, match=r"leads out of its folder|missing"):
        open_data_set(store.uri, part)
    outcome = tenfold("fpcb", "features", store.uri)
    assert outcome.code == 2
    assert store.list() == [DESCRIPTION]


def test_manifest_whose_files_lie_elsewhere_is_refused(store):
    from cluster.manifest import intact, read_entries

    line = {"key": "00000", "fingerprint": "f", "files": {"../../x": [1, "a"]}}
    store.write_bytes(MANIFEST, json.dumps(line).encode())
    with pytest.raises(InputError, match="leads out"):
        intact(store, read_entries(store, "f").values())


@pytest.mark.parametrize("name", ["../../escaped/frame_00000.txt", "/escaped/frame_00000.txt"])
def test_archive_in_place_of_bundles_is_not_unpacked(tmp_path, name):
    archive = tmp_path / "bundles" / "panel.zip"
    archive.parent.mkdir()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr(name, "1 2\n")
    for source in (archive, archive.parent):
        outcome = tenfold("fpcb", "import", source, "--out", tmp_path / "out")
        assert outcome.code == 2
        assert "Traceback" not in outcome.err
    assert not [*tmp_path.rglob("escaped")]
    assert not Path("/escaped").exists()


def test_labels_are_no_yaml(tmp_path, marker):
    (tmp_path / "panel").mkdir()
    (tmp_path / "panel" / "frame_00000.txt").write_text("1 2\n")
    (tmp_path / "labels.yaml").write_text(YAML.format(marker=marker))
    outcome = tenfold(
        "fpcb", "import", tmp_path / "panel", "--labels", tmp_path / "labels.yaml",
        "--out", tmp_path / "out",
    )  # fmt: skip
    assert outcome.code == 2
    assert "labels.yaml" in outcome.err


@pytest.mark.parametrize("which", ["matrix", "y"])
def test_hostile_problem_is_refused(tmp_path, payload, marker, which):
    import scipy.sparse as sp

    good = {"matrix": tmp_path / "X.npz", "y": tmp_path / "y.npy"}
    sp.save_npz(good["matrix"], sp.random(20, 5, 0.5, format="csc", random_state=0))
    np.save(good["y"], np.arange(20.0))
    for content in (payload, object_archive(tmp_path / "evil.npz", marker)):
        good[which].write_bytes(content)
        options = [f"--{name}={path}" for name, path in good.items()]
        outcome = tenfold("bench", "lasso", *options, "--out", tmp_path / "out")
        assert outcome.code == 2, outcome.err
        assert "cannot read" in outcome.err


def calls_of(path):
    """Yield the dotted name of each call in a file, and its constant keyword arguments."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            given = {
                word.arg: word.value.value
                for word in node.keywords
                if isinstance(word.value, ast.Constant)
            }
            yield ast.unparse(node.func), given


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_nothing_of_ours_runs_what_it_reads(path):
    for name, given in calls_of(path):
        room, _, function = name.rpartition(".")
        assert name not in ("eval", "exec", "__import__", "os.system", "os.popen"), name
        assert room not in ("pickle", "cloudpickle", "joblib", "dill", "shelve", "marshal"), name
        assert room != "yaml" or function == "safe_load", name
        assert function not in ("extractall", "unpack_archive", "read_pickle"), name
        assert not given.get("shell"), name
        assert not given.get("allow_pickle"), name
        assert name != "torch.load" or given.get("weights_only") is True, name
