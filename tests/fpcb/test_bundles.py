"""Panel bundles: the round trip is exact, and each kind of bad one is left out with a reason."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.errors import InputError
from pipelines.fpcb.bundles.bundle import read_bundle, write_bundle
from pipelines.fpcb.bundles.folders import (
    ImportConfig,
    Reject,
    export_bundles,
    find_bundles,
    read_bundles,
    rejects_table,
    split_of,
)
from pipelines.fpcb.bundles.frame_text import BadBundle, shown
from pipelines.fpcb.bundles.labels import LABEL_FIELDS, read_labels
from pipelines.fpcb.panel_table import PANEL_FIELDS, panel_table
from pipelines.fpcb.population import SPLITS
from pipelines.fpcb.scenarios import NAMES

KNOWN = {"label": 1, "scenario": "crack", "split": "test", "crack_frame": 2}


def random_panel(seed: int, n_frames: int = 4, n_points: int = 5) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(-(2**15), 2**15, (2, n_frames, n_points)).astype(np.int16)


@pytest.fixture
def three(tmp_path):
    """Three good bundles, the middle one to be broken; returns their folder."""
    for i, name in enumerate(("a_first", "b_middle", "c_last")):
        write_bundle(tmp_path / "data" / name, random_panel(i), 30.0, KNOWN)
    return tmp_path / "data"


def import_all(folder, labels=None, **options):
    """Return the rows, by name, and the rejects."""
    found, lost = find_bundles([str(folder)])
    known = read_labels(labels) if labels else None
    table, rejects = read_bundles(found, ImportConfig(labels=labels, **options), known)
    return {row["name"]: row for row in table.to_pylist()}, lost + rejects


def the_reject(folder, **options) -> Reject:
    """Return the only reject, with its file below ``folder``; both good bundles came through."""
    rows, [reject] = import_all(folder, **options)
    assert {"a_first", "c_last"} <= {*rows}
    for i, name in enumerate(("a_first", "b_middle", "c_last")):
        if name in rows:
            assert rows[name]["points"] == random_panel(i).ravel().tolist()
    assert rejects_table([reject]).to_pylist() == [reject._asdict()]
    return reject._replace(file=os.path.relpath(reject.file, folder))


# ---------------------------------------------------------------------------------- round trip


PANELS = st.fixed_dictionaries(
    {
        "points": st.builds(
            random_panel, st.integers(0, 2**32), st.integers(3, 6), st.integers(3, 12)
        ),
        "fps": st.floats(1e-300, 1e300),
        "metres": st.floats(1e-300, 1e300) | st.just(float("nan")),
        "label": st.sampled_from([None, 0, 1]),
        "scenario": st.sampled_from([None, *NAMES]),
        "split": st.sampled_from([None, *SPLITS]),
        "crack_frame": st.sampled_from([None, 0, 1, 2]),
        "metadata": st.none()
        | st.dictionaries(
            st.text(max_size=8).filter(lambda key: key not in (*KNOWN, "meters_per_pixel")),
            st.integers() | st.text(max_size=5) | st.lists(st.floats(allow_nan=False), max_size=3),
            min_size=1,
            max_size=3,
        ).map(json.dumps),
    }
)


def table_of(panels) -> pa.Table:
    beside = {name: [panel[name] for panel in panels] for name in LABEL_FIELDS.names}
    names = [f"line_{i // 2}/panel_{i:02d}" for i in range(len(panels))]
    schema = pa.schema([("name", pa.string()), *LABEL_FIELDS])
    return panel_table(
        np.arange(len(panels)),
        [panel["points"] for panel in panels],
        [panel["fps"] for panel in panels],
        [panel["metres"] for panel in panels],
        pa.table({"name": names, **beside}, schema=schema),
    )


@settings(deadline=None, max_examples=40)
@given(st.lists(PANELS, min_size=1, max_size=5))
def test_bundles_come_back_exactly(panels):
    table = table_of(panels)
    with tempfile.TemporaryDirectory() as folder:
        assert export_bundles(table, folder) == table["name"].to_pylist()
        found, lost = find_bundles([folder])
        again, rejects = read_bundles(found)
        assert lost + rejects == []
        assert again.equals(table)
        assert again.schema.equals(table.schema)


def test_bundle_is_what_the_tracker_writes(tmp_path):
    points = np.arange(2 * 3 * 4, dtype=np.int16).reshape(2, 3, 4)
    known = {"label": [0], "crack_place": [0.7], "severity": [None]}
    table = panel_table([12], [points], [29.97], [1e-4], pa.table(known))
    assert export_bundles(table, tmp_path) == ["panel_000012"]
    folder = tmp_path / "panel_000012"
    frames = [f"frame_{i:05d}.txt" for i in range(3)]
    assert sorted(p.name for p in folder.iterdir()) == ["fps.txt", *frames, "metadata.json"]
    assert (folder / frames[1]).read_text() == "# x,y,index\n4,16,1\n5,17,2\n6,18,3\n7,19,4\n"
    np.testing.assert_array_equal(
        np.loadtxt(folder / frames[2], delimiter=",", dtype=int)[:, :2], points[:, 2].T
    )
    assert float((folder / "fps.txt").read_text()) == 29.97
    metadata = json.loads((folder / "metadata.json").read_text())
    assert metadata == {"label": 0, "crack_place": 0.7, "meters_per_pixel": 1e-4}
    (folder / "frame_metrics.csv").write_text("torn,\n1")
    rows, rejects = import_all(tmp_path)
    assert rejects == []
    assert json.loads(rows["panel_000012"]["metadata"]) == {"crack_place": 0.7}


def test_export_replaces_an_older_bundle_whole(tmp_path):
    old, new = random_panel(1, n_frames=6), random_panel(2, n_frames=4)
    write_bundle(tmp_path / "p", old, 30.0, KNOWN)
    write_bundle(tmp_path / "p", new, 25.0)
    bundle = read_bundle(tmp_path / "p")
    np.testing.assert_array_equal(bundle.points, new)
    assert bundle.fps == 25.0
    assert bundle.labels.label is None
    assert [path.name for path in tmp_path.iterdir()] == ["p"]


def test_export_is_refused_when_other_files_are_in_the_way(tmp_path):
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "thesis.docx").write_text("years of work")
    with pytest.raises(InputError, match="p: cannot be written"):
        write_bundle(tmp_path / "p", random_panel(1), 30.0)
    assert [path.name for path in tmp_path.rglob("*")] == ["p", "thesis.docx"]
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        write_bundle(tmp_path / "file" / "p", random_panel(1), 30.0)


@pytest.mark.parametrize("name", ["../p", "/p", "a/../../p", "a//p", ".", ".p", "a/.b", "a\0b"])
def test_export_is_refused_when_a_name_leads_out_of_the_folder(tmp_path, name):
    table = panel_table([3], [random_panel(1)], [30.0], [np.nan], pa.table({"name": [name]}))
    with pytest.raises(InputError, match="panel 3: name: expected a folder's name"):
        export_bundles(table, tmp_path / "inside")
    assert [*tmp_path.iterdir()] == []


def test_export_is_refused_when_two_panels_have_one_name(tmp_path):
    names = pa.table({"name": ["p", "p"]})
    table = panel_table([3, 4], [random_panel(1)] * 2, [30.0] * 2, [np.nan] * 2, names)
    with pytest.raises(InputError, match=r"panel 4: name: .*Panel 3 has it too"):
        export_bundles(table, tmp_path)


# ------------------------------------------------------------------------------------- finding


def test_bundles_are_found_at_any_depth_and_named_by_their_path(tmp_path):
    for name in ("z", "line/a", "line/deep/b", ".hidden/c"):
        write_bundle(tmp_path / "data" / name, random_panel(0), 30.0)
    (tmp_path / "data" / "notes").mkdir()
    (tmp_path / "data" / "notes" / "readme.md").write_text("not a bundle")
    (tmp_path / "data" / "fps.txt").write_text("30\n")
    write_bundle(tmp_path / "one", random_panel(1), 30.0)
    top, one = str(tmp_path / "data"), str(tmp_path / "one")
    found, rejects = find_bundles([top, one, one, str(tmp_path / "data" / "line")])
    assert [(f.number, f.name) for f in found] == [
        (0, "line/a"), (1, "line/deep/b"), (2, "z"), (3, "one"),
    ]  # fmt: skip
    assert rejects == []


def test_bundle_inside_a_bundle_is_found_too(tmp_path):
    write_bundle(tmp_path / "outer", random_panel(0), 30.0)
    write_bundle(tmp_path / "outer" / "inner", random_panel(1), 30.0)
    rows, rejects = import_all(tmp_path)
    assert ([*rows], rejects) == (["outer", "outer/inner"], [])


def test_second_bundle_of_a_name_is_left_out(tmp_path):
    for day in ("monday", "tuesday"):
        write_bundle(tmp_path / day / "p", random_panel(0), 30.0)
    monday, tuesday = str(tmp_path / "monday"), str(tmp_path / "tuesday")
    found, [reject] = find_bundles([monday, tuesday])
    assert [f.folder for f in found] == [f"{monday}/p"]
    assert reject == Reject("p", f"{tuesday}/p", None, "name twice, first in", f"{monday}/p")
    both, rejects = find_bundles([str(tmp_path)])
    assert ([f.name for f in both], rejects) == (["monday/p", "tuesday/p"], [])


def test_links_to_folders_are_listed_and_never_followed(tmp_path):
    write_bundle(tmp_path / "data" / "p", random_panel(0), 30.0)
    write_bundle(tmp_path / "elsewhere", random_panel(1), 30.0)
    (tmp_path / "data" / "around").symlink_to(tmp_path / "data")
    (tmp_path / "data" / "out").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data" / "self").symlink_to("self")
    rows, rejects = import_all(tmp_path / "data")
    assert [*rows] == ["p"]
    assert [(r.bundle, r.value) for r in rejects] == [
        ("around", shown(tmp_path / "data")),
        ("out", shown(tmp_path / "elsewhere")),
    ]
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    rows, rejects = import_all(tmp_path / "link")
    assert ([*rows], rejects) == (["elsewhere"], [])


def test_folder_whose_name_is_not_utf8_is_left_out(three):
    broken = os.fsencode(three) + b"/b_\xff"
    (three / "b_middle").rename(os.fsdecode(broken))
    reject = the_reject(three)
    assert reject.bundle == "b_\\udcff"
    assert reject.reason == "the folder's name is not UTF-8"


@pytest.mark.parametrize("folder", ["", "nowhere", "file", "empty/within"])
def test_folder_without_bundles_is_bad_input(tmp_path, monkeypatch, folder):
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("")
    Path("empty/within").mkdir(parents=True)
    Path("empty/within/readme.md").write_text("")
    with pytest.raises(InputError, match=r"no such folder|no panel bundle"):
        find_bundles([folder])


# ------------------------------------------------------------------------------------ importing


def test_row_does_not_depend_on_the_shard(tmp_path):
    for i in range(7):
        name = tmp_path / f"p{i}"
        write_bundle(name, random_panel(i, 3 + i % 2, 4 + i), 30.0 + i, KNOWN if i % 3 else None)
    found, _ = find_bundles([str(tmp_path)])
    whole, _ = read_bundles(found)
    assert whole["number"].to_pylist() == [*range(7)]
    for cut in (1, 3, 6):
        parts = [read_bundles(part)[0] for part in (found[:cut], found[cut:])]
        assert pa.concat_tables(parts).combine_chunks().equals(whole)
    assert read_bundles(found[::-1])[0].sort_by("number").equals(whole)


def test_nothing_good_gives_an_empty_table_of_the_same_columns(tmp_path):
    (tmp_path / "p").mkdir()
    found, _ = find_bundles([str(tmp_path)])
    table, [reject] = read_bundles(found)
    assert (table.num_rows, reject.reason) == (0, "no frames")
    write_bundle(tmp_path / "p", random_panel(0), 30.0)
    assert table.schema.equals(read_bundles(found)[0].schema)
    assert {*PANEL_FIELDS.names, *LABEL_FIELDS.names} == {*table.column_names}


def test_options_fill_in_only_what_bundles_do_not_say(three):
    (three / "b_middle" / "fps.txt").unlink()
    write_bundle(three / "a_first", random_panel(0), 30.0, {"meters_per_pixel": 2e-4})
    rows, rejects = import_all(three, fps=25.0, metres_per_pixel=1e-4)
    assert rejects == []
    assert [row["fps"] for row in rows.values()] == [30.0, 25.0, 30.0]
    assert [row["metres_per_pixel"] for row in rows.values()] == [2e-4, 1e-4, 1e-4]


@pytest.mark.parametrize("option", ["fps", "metres_per_pixel"])
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_option_that_is_not_a_positive_number_is_refused(option, value):
    with pytest.raises(InputError, match=f"--{option.replace('_', '-')}: not usable"):
        ImportConfig(**{option: value})


def test_names_come_sorted_and_trackers_ending_lines_otherwise_are_read(three):
    for frame in (three / "b_middle").glob("frame_*"):
        frame.write_bytes(frame.read_bytes().replace(b"\n", b"\r\n"))
    (three / "b_middle" / "fps.txt").write_text(" 3.0e1 \r\n\r\n")
    rows, rejects = import_all(three)
    assert ([*rows], rejects) == (["a_first", "b_middle", "c_last"], [])
    assert rows["b_middle"]["points"] == random_panel(1).ravel().tolist()


# ----------------------------------------------------------------------------------- bad bundles

SECOND = "frame_00001.txt"


def text(name, content):
    def change(folder):
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())

    return change


def swap(name, old, new):
    """Replace line ``old`` (from 1; None appends, a negative one counts from the end)."""

    def change(folder):
        lines = (folder / name).read_text().splitlines()
        lines[old - 1 if old > 0 else old] = new
        (folder / name).write_text("\n".join(lines))

    return change


def cut(n_bytes):
    def change(folder):
        data = (folder / SECOND).read_bytes()
        (folder / SECOND).write_bytes(data[:-n_bytes])

    return change


def remove(pattern):
    def change(folder):
        for file in folder.glob(pattern):
            file.unlink()

    return change


def rewrite(points):
    return lambda folder: write_bundle(folder, points, 30.0)


def metadata(**changes):
    return text("metadata.json", json.dumps(KNOWN | changes, indent=1))


def link(name, target):
    def change(folder):
        (folder / name).unlink()
        (folder / name).symlink_to(target)

    return change


def folder_instead(name):
    def change(folder):
        (folder / name).unlink()
        (folder / name).mkdir()

    return change


def pipe_instead(name):
    def change(folder):
        (folder / name).unlink()
        os.mkfifo(folder / name)

    return change


def renumbered_from_one(folder):
    for i in reversed(range(4)):
        (folder / f"frame_{i:05d}.txt").rename(folder / f"frame_{i + 1:05d}.txt")


ROWS = "# x,y,index\n1,2,1\n3,4,2\n5,6,3\n7,8,4\n9,10,5\n"
BAD = {
    "gap in the frames": (remove(SECOND), SECOND, None, "frame is missing", "frame_00002.txt"),
    "first frame missing": (renumbered_from_one, "frame_00000.txt", None,
     "frame is missing", SECOND),
    "frame of another name": (
        text("frame_1.txt", ROWS), "frame_00004.txt", None, "frame is missing", "frame_1.txt"),
    "no frames": (remove("frame_*"), "", None, "no frames", ""),
    "nothing at all": (remove("*"), "", None, "no frames", ""),
    "too few frames": (remove("frame_0000[23].txt"), "", None, "fewer than 3 frames", "2"),
    "too few points": (
        rewrite(random_panel(1, 4, 2)), "frame_00000.txt", None, "fewer than 3 points", "2"),
    "torn row": (cut(4), SECOND, 6, "torn row", None),
    "torn index, so repeated": (
        lambda f: [write_bundle(f, random_panel(1, 4, 12), 30.0), cut(2)(f)],
        SECOND, 13, "index repeated, first on line 2", "1"),
    "lost row": (swap(SECOND, -1, ""), SECOND, None, "other point count than most frames, 5", "4"),
    "added row": (swap(SECOND, -1, "1,2,5\n3,4,6"), SECOND, None, "other point count", "6"),
    "decimal": (swap(SECOND, 3, "1.5,2,2"), SECOND, 3, "not an integer", "1.5"),
    "NaN": (swap(SECOND, 3, "1,nan,2"), SECOND, 3, "not an integer", "nan"),
    "empty field": (swap(SECOND, 3, "1,,2"), SECOND, 3, "torn row", "1,,2"),
    "repeated index": (swap(SECOND, 3, "1,2,1"), SECOND, 3, "index repeated, first on line 2", "1"),
    "missing index": (swap(SECOND, 3, "1,2,6"), SECOND, 4, "index 2 is missing", "3"),
    "index from 0": (swap(SECOND, 2, "1,2,0"), SECOND, 2, "index is counted from 1", "0"),
    "value beyond int16": (swap(SECOND, 3, "32768,2,2"), SECOND, 3, "x is outside", "32768"),
    "empty file": (text(SECOND, ""), SECOND, None, "empty file", ""),
    "header alone": (text(SECOND, "# x,y,index\n"), SECOND, None, "no points in it", ""),
    "other header": (swap(SECOND, 1, "# y,x,index"), SECOND, 1, "header is not", "# y,x,index"),
    "not UTF-8": (text(SECOND, ROWS.encode() + b"\xff"), SECOND, 7, "not UTF-8", "\\xff"),
    "UTF-16": (text(SECOND, ROWS.encode("utf-16")), SECOND, 1, "not UTF-8", "\\xff"),
    "link out": (
        link(SECOND, "/etc/hostname"), SECOND, None, "a link out of the bundle", "/etc/hostname"),
    "link to a neighbour": (
        link(SECOND, f"../a_first/{SECOND}"), SECOND, None, "a link out", f"../a_first/{SECOND}"),
    "link to nothing": (link(SECOND, "gone.txt"), SECOND, None, "not a file", ""),
    "link to itself": (link(SECOND, SECOND), SECOND, None, "", None),
    "folder as frame": (folder_instead(SECOND), SECOND, None, "not a file", ""),
    "pipe as frame": (pipe_instead(SECOND), SECOND, None, "not a file", ""),
    "huge file": (
        lambda f: os.truncate(f / SECOND, 2**33), SECOND, None, "larger than 16777216 bytes", ""),
    "fps missing": (remove("fps.txt"), "fps.txt", None, "fps.txt is missing", ""),
    "fps empty": (text("fps.txt", ""), "fps.txt", 1, "not one number", ""),
    "fps 0": (text("fps.txt", "0"), "fps.txt", 1, "not a positive number", "0"),
    "fps negative": (text("fps.txt", "-30\n"), "fps.txt", 1, "not a positive number", "-30"),
    "fps NaN": (text("fps.txt", "nan"), "fps.txt", 1, "not a positive number", "nan"),
    "fps infinite": (text("fps.txt", "1e999"), "fps.txt", 1, "not a positive number", "1e999"),
    "fps text": (text("fps.txt", "thirty"), "fps.txt", 1, "not one number", "thirty"),
    "fps twice": (text("fps.txt", "30\n25\n"), "fps.txt", 1, "not one number", "30\\n25"),
    "fps 3_0": (text("fps.txt", "3_0"), "fps.txt", 1, "not one number", "3_0"),
    "fps not ASCII": (text("fps.txt", b"\xff30"), "fps.txt", 1, "not one number", None),
    "fps a folder": (folder_instead("fps.txt"), "fps.txt", None, "not a file", ""),
    "broken metadata": (
        text("metadata.json", '{"label": 1,\n'), "metadata.json", 2, "broken JSON", ""),
    "metadata of deep nesting": (
        text("metadata.json", "[" * 100_000), "metadata.json", None,
         "JSON that cannot be read", None),
    "metadata of many digits": (
        text("metadata.json", "9" * 5_000), "metadata.json", None,
         "JSON that cannot be read", None),
    "metadata no object": (
        text("metadata.json", "[1]"), "metadata.json", 1, "not a JSON object", "[1]"),
    "metadata not UTF-8": (
        text("metadata.json", b'{\n"\xff"'), "metadata.json", 2, "not UTF-8", None),
    "metadata a folder": (folder_instead("metadata.json"), "metadata.json", None, "not a file", ""),
    "metadata a link out": (
        link("metadata.json", "/etc/hostname"), "metadata.json", None, "a link out",
         "/etc/hostname"),
    "label 2": (metadata(label=2), "metadata.json", 2, "label: ", "2"),
    "label text": (metadata(label="1"), "metadata.json", 2, "label: ", "1"),
    "label true": (metadata(label=True), "metadata.json", 2, "label: ", "True"),
    "label 0.5": (metadata(label=0.5), "metadata.json", 2, "label: ", "0.5"),
    "unknown scenario": (
        metadata(scenario="craque"), "metadata.json", 3, "scenario: unknown scenario", "craque"),
    "scenario a number": (metadata(scenario=3), "metadata.json", 3, "scenario: ", "3"),
    "unknown split": (
        metadata(split="holdout"), "metadata.json", 4, "split: unknown split", "holdout"),
    "crack beyond the end": (
        metadata(crack_frame=4), "metadata.json", 5, "crack_frame: the last", "4"),
    "crack before the start": (metadata(crack_frame=-2), "metadata.json", 5, "crack_frame: ", "-2"),
    "no metres": (metadata(meters_per_pixel=0), "metadata.json", 6, "meters_per_pixel: ", "0"),
    "metres NaN": (
        metadata(meters_per_pixel=np.nan), "metadata.json", 6, "meters_per_pixel: ", "nan"),
    "metres huge": (
        metadata(meters_per_pixel=10**400), "metadata.json", 6, "meters_per_pixel: ", None),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
def test_bad_bundle_is_left_out_with_file_line_and_reason(three, kind):
    change, file, line, reason, value = BAD[kind]
    change(three / "b_middle")
    reject = the_reject(three)
    assert reject.bundle == "b_middle"
    assert reject.file == str(Path("b_middle", file))
    assert reject.line == line
    assert reason in reject.reason
    assert value is None or reject.value == value


def test_bundle_that_may_not_be_read_is_left_out():
    with tempfile.TemporaryDirectory() as base:
        Path(base).chmod(0o755)  # root may read all: look at it as nobody
        for i, name in enumerate(("a_first", "b_middle", "c_last", "d_shut")):
            write_bundle(Path(base, name), random_panel(i), 30.0)
        Path(base, "b_middle", SECOND).chmod(0)
        Path(base, "d_shut").chmod(0)
        me = os.geteuid()
        try:
            if me == 0:
                os.seteuid(65534)
            rows, rejects = import_all(base)
        finally:
            if me == 0:
                os.seteuid(0)
            Path(base, "d_shut").chmod(0o755)
    assert [*rows] == ["a_first", "c_last"]
    assert [(os.path.relpath(r.file, base), r.reason, r.value) for r in rejects] == [
        ("d_shut", "cannot be listed", "Permission denied"),
        (f"b_middle/{SECOND}", "cannot be read", "Permission denied"),
    ]


def test_bundle_that_vanishes_after_it_was_found_is_left_out(three):
    found, _ = find_bundles([str(three)])
    shutil.rmtree(three / "b_middle")
    table, [reject] = read_bundles(found)
    assert table["name"].to_pylist() == ["a_first", "c_last"]
    assert table["number"].to_pylist() == [0, 2]
    assert (reject.bundle, reject.reason) == ("b_middle", "cannot be read")


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_bundle_is_read_or_refused_when_bytes_of_any_file_are_flipped(data):
    with tempfile.TemporaryDirectory() as base:
        folder = Path(base, "p")
        write_bundle(folder, random_panel(3, 3, 4), 30.0, KNOWN | {"meters_per_pixel": 1e-4})
        file = data.draw(st.sampled_from(sorted(folder.iterdir())))
        content = bytearray(file.read_bytes())
        for _ in range(data.draw(st.integers(1, 3))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
        file.write_bytes(content)
        rows, rejects = import_all(base)
        assert len(rows) + len(rejects) == 1
        if rows and not file.name.startswith("frame_"):
            assert rows["p"]["points"] == random_panel(3, 3, 4).ravel().tolist()
        for reject in rejects:
            assert reject.file == str(file) or reject.reason.startswith("other point count")
            assert reject.reason


@settings(deadline=None, max_examples=100)
@given(
    st.dictionaries(
        st.sampled_from([*KNOWN, "meters_per_pixel", "row", "metadata", "name", "__class__"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
            lambda inner: st.lists(inner, max_size=2),
            max_leaves=3,
        ),
    )
)
def test_any_metadata_is_taken_or_refused(content):
    with tempfile.TemporaryDirectory() as base:
        write_bundle(Path(base, "p"), random_panel(3, 3, 4), 30.0, content)
        rows, rejects = import_all(base)
        assert len(rows) + len(rejects) == 1
        for row in rows.values():
            kept = {k: v for k, v in content.items() if k not in (*KNOWN, "meters_per_pixel")}
            assert json.dumps(kept) == (row["metadata"] or "{}")
            assert all(row[name] in (content.get(name), None) for name in KNOWN)


# ---------------------------------------------------------------------------------- CSV of labels


@pytest.fixture
def csv_of(tmp_path):
    def write(content):
        data = content if isinstance(content, bytes) else content.encode()
        (tmp_path / "labels.csv").write_bytes(data)
        return str(tmp_path / "labels.csv")

    return write


def unlabelled(folder):
    for file in folder.glob("*/metadata.json"):
        file.unlink()


def test_labels_come_from_a_csv_when_bundles_have_none(three, csv_of):
    unlabelled(three)
    labels = csv_of('\ufeffsplit,name,label,remark\r\ntest,c_last,1,\r\n\r\n,a_first,0,"a\nb"\r\n')
    rows, rejects = import_all(three, labels)
    assert rejects == []
    assert [row["label"] for row in rows.values()] == [0, None, 1]
    assert [row["split"] for row in rows.values()] == [None, None, "test"]


def test_csv_completes_metadata(three, csv_of):
    write_bundle(
        three / "b_middle", random_panel(1), 30.0, {"label": 1, "crack_frame": 2, "by": "Kim"}
    )
    labels = csv_of("name,label,scenario,split\nb_middle,1,crack,val\n")
    rows, rejects = import_all(three, labels)
    assert rejects == []
    expected = {"label": 1, "crack_frame": 2, "scenario": "crack", "split": "val"}
    assert {name: rows["b_middle"][name] for name in KNOWN} == expected
    assert json.loads(rows["b_middle"]["metadata"]) == {"by": "Kim"}


@pytest.mark.parametrize(
    ("lines", "line", "reason", "value"),
    [
        ("b_middle,0,crack,test", 2, "label contradicts metadata.json, which has 1", "0"),
        ("b_middle,1,micro_crack,test", 2,
         "scenario contradicts metadata.json, which has crack", "micro_crack"),
        ("b_middle,1,crack,train", 2, "split contradicts metadata.json, which has test", "train"),
        ("b_middle,2,crack,test", 2, "label: expected 0 or 1", "2"),
        ("b_middle,NG,crack,test", 2, "label: expected 0 or 1", "NG"),
        ("b_middle,1,craque,test", 2, "scenario: unknown scenario", "craque"),
        ("b_middle,1,crack,holdout", 2, "split: unknown split", "holdout"),
        ("b_middle,1", 2, "torn row, not 4 fields", "b_middle,1"),
        ("b_middle,1,crack,test\nb_middle,1,crack,test", 3, "name repeated", "b_middle"),
    ],
)  # fmt: skip
def test_bad_line_of_labels_leaves_out_its_bundle_alone(three, csv_of, lines, line, reason, value):
    labels = csv_of(f"name,label,scenario,split\n{lines}\na_first,1,crack,test\n")
    reject = the_reject(three, labels=labels)
    assert (reject.bundle, reject.line, reject.value) == ("b_middle", line, value)
    assert reject.file == os.path.relpath(labels, three)
    assert reason in reject.reason


def test_labels_of_no_bundle_are_listed(csv_of):
    known = read_labels(csv_of("name,label\na,0\nb_midle,1\n,1\nz,7\n"))
    rejects = [Reject.of(name, bad) for name, bad in known.unmatched(["a", "b_middle"])]
    assert [(r.bundle, r.line, r.reason, r.value) for r in rejects] == [
        ("b_midle", 3, "no such bundle", "b_midle"),
        ("", 4, "no such bundle", ""),
        ("z", 5, "label: expected 0 or 1", "7"),
    ]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("", "no column 'name'"),
        ("name,scenario\na,crack\n", "no column 'label'"),
        (b"name,label\n\xff,1\n", "cannot be read"),
        ('name,label\n"a,1\n', "cannot be read"),
        ("name;label\na;1\n", "no column 'name'"),
    ],
)
def test_labels_that_cannot_be_read_are_bad_input(csv_of, content, complaint):
    with pytest.raises(InputError, match=complaint):
        read_labels(csv_of(content))


def test_labels_that_are_not_there_are_bad_input(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_labels(str(tmp_path / "none.csv"))


def test_bad_bundle_is_an_error_of_the_users(three):
    (three / "b_middle" / "fps.txt").write_text("0")
    with pytest.raises(BadBundle, match=r"fps\.txt, line 1: .*got 0\.") as caught:
        read_bundle(three / "b_middle")
    assert caught.value.exit_code == 2


def test_bundles_without_a_split_get_one_by_their_name(tmp_path):
    shares = np.unique([split_of(f"panel-{i}") for i in range(4_000)], return_counts=True)
    counts = dict(zip(*shares, strict=True))
    assert counts["train"] / 4_000 == pytest.approx(0.70, abs=0.03)
    assert counts["val"] / 4_000 == pytest.approx(0.15, abs=0.03)
    for i in range(4):
        known = {"split": "test"} if i == 0 else {}
        write_bundle(tmp_path / "data" / f"panel-{i}", random_panel(i), 30.0, known)
    rows, _ = import_all(tmp_path / "data", assign_splits=True)
    assert rows["panel-0"]["split"] == "test"
    assert all(rows[f"panel-{i}"]["split"] == split_of(f"panel-{i}") for i in (1, 2, 3))
    assert import_all(tmp_path / "data")[0]["panel-1"]["split"] is None
