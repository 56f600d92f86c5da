"""The text of frames against a brute-force parser, and mutilated in every way."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pipelines.fpcb.bundles.frame_text import HEADER, BadBundle, parse_frames, shown

KNOWN_BYTES = set(b"0123456789,-+ \t\r\n#xyinde")


def brute_force(texts: list[bytes]) -> np.ndarray:
    """Return the points, a number at a time; ValueError where there is no panel."""
    frames = []
    for data in texts:
        data = data.removeprefix("\ufeff".encode())
        if not set(data) <= KNOWN_BYTES:
            raise ValueError("other characters")
        lines = [line.removesuffix("\r") for line in data.decode().split("\n")]
        cells = lines[0].strip(" \t").removeprefix("#").split(",")
        if [cell.strip(" \t") for cell in cells] == ["x", "y", "index"]:
            del lines[0]
        if "\r" in "".join(lines):
            raise ValueError("lone CR")
        rows = [[int(cell) for cell in line.split(",")] for line in lines if line.strip()]
        frame = {index: (x, y) for x, y, index in rows}
        if sorted(row[2] for row in rows) != list(range(1, len(rows) + 1)) or not rows:
            raise ValueError("indices")
        frames.append([frame[index] for index in sorted(frame)])
    points = np.array(frames, dtype=np.int64).transpose(2, 0, 1)
    if np.abs(points + 0.5).max() > 32767.5:
        raise ValueError("outside int16")
    return points


def frames_of(points: np.ndarray) -> list[bytes]:
    return [
        HEADER
        + b"".join(b"%d,%d,%d\n" % (x, y, i) for i, (x, y) in enumerate(frame.T.tolist(), start=1))
        for frame in np.moveaxis(points, 1, 0)
    ]


def names(texts) -> list[str]:
    return [f"frame_{i:05d}.txt" for i in range(len(texts))]


PANELS = hnp.arrays(
    np.int16,
    st.tuples(st.just(2), st.integers(1, 5), st.integers(1, 12)),
    elements=st.integers(-(2**15), 2**15 - 1),
)


@settings(deadline=None)
@given(PANELS)
def test_frames_give_the_points_they_were_written_from(points):
    parsed = parse_frames(frames_of(points), names(points[0]))
    np.testing.assert_array_equal(parsed, points)
    assert parsed.dtype == np.int16


@settings(deadline=None)
@given(PANELS, st.data())
def test_frames_give_the_same_points_when_their_text_is_unusual(points, data):
    texts = []
    for text in frames_of(points):
        header, *rows = text.decode().splitlines()
        if data.draw(st.booleans(), label="any order"):
            rows = data.draw(st.permutations(rows))
        if data.draw(st.booleans(), label="blanks"):
            rows = [" " + row.replace(",", " ,\t") + " " for row in rows]
        if data.draw(st.booleans(), label="zeros"):
            rows = [",".join(f"{int(cell):+08d}" for cell in row.split(",")) for row in rows]
        header = data.draw(st.sampled_from([header, "#x, y, index", "x,y,index", None]))
        lines = rows if header is None else [header, *rows]
        if data.draw(st.booleans(), label="blank lines"):
            lines = [line for row in lines for line in (row, "", "  ")]
        end = data.draw(st.sampled_from(["\n", "\r\n"]))
        whole = end.join(lines) + data.draw(st.sampled_from(["", end, end + end]))
        texts.append((data.draw(st.sampled_from(["", "\ufeff"])) + whole).encode())
    np.testing.assert_array_equal(parse_frames(texts, names(texts)), points)
    np.testing.assert_array_equal(brute_force(texts), points)


def agrees_with_brute_force(texts: list[bytes]) -> None:
    try:
        expected = brute_force(texts)
    except ValueError:
        with pytest.raises(BadBundle) as caught:
            parse_frames(texts, names(texts))
        assert caught.value.file in names(texts)
        assert caught.value.reason
        assert caught.value.line is None or 1 <= caught.value.line <= 40
    else:
        np.testing.assert_array_equal(parse_frames(texts, names(texts)), expected)


@settings(max_examples=400, deadline=None)
@given(PANELS, st.data())
def test_frames_are_read_right_or_refused_when_bytes_are_flipped(points, data):
    texts = [bytearray(text) for text in frames_of(points)]
    for _ in range(data.draw(st.integers(1, 3))):
        text = texts[data.draw(st.integers(0, len(texts) - 1))]
        place = data.draw(st.integers(0, len(text) - 1))
        near = st.sampled_from(sorted(KNOWN_BYTES))
        text[place] = data.draw(st.one_of(near, st.integers(0, 255)))
    agrees_with_brute_force([bytes(text) for text in texts])


@settings(max_examples=200, deadline=None)
@given(PANELS, st.data())
def test_frames_are_read_right_or_refused_when_bytes_are_lost_or_doubled(points, data):
    texts = frames_of(points)
    which = data.draw(st.integers(0, len(texts) - 1))
    text = texts[which]
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(start + 12, len(text))))
    double = data.draw(st.booleans())
    texts[which] = text[:end] + text[start:] if double else text[:start] + text[end:]
    agrees_with_brute_force(texts)


@pytest.mark.parametrize(
    "kept", range(len(HEADER) + 1, len(frames_of(np.full((2, 1, 12), 321))[0]) - 1)
)
def test_frame_is_refused_when_cut_anywhere_before_its_last_line_end(kept):
    whole = frames_of(np.full((2, 3, 12), 321))
    with pytest.raises(BadBundle) as caught:
        parse_frames([whole[0], whole[1][:kept], whole[2]], names(whole))
    assert caught.value.file == "frame_00001.txt"


@pytest.mark.parametrize(
    ("text", "line", "reason", "value"),
    [
        (b"", None, "empty file", None),
        (b"\n\n", None, "no points in it", None),
        (b"# x,y,index\n", None, "no points in it", None),
        (b"# y,x,index\n1,2,1\n", 1, "header is not '# x,y,index'", "# y,x,index"),
        (b"# x,y\n1,2,1\n", 1, "header is not '# x,y,index'", "# x,y"),
        (b"# x,y,index\n1,2,1\n3,4", 3, "torn row, not x,y,index", "3,4"),
        (b"# x,y,index\n1,2,1\n3,4,\n", 3, "torn row, not x,y,index", "3,4,"),
        (b"# x,y,index\n1,2,1\n3,4,2,5\n", 3, "torn row, not x,y,index", "3,4,2,5"),
        (b"# x,y,index\n1,2,1\n3.5,4,2\n", 3, "not an integer", "3.5"),
        (b"# x,y,index\n1,2,1\n0x10,4,2\n", 3, "not an integer", "0x10"),
        (b"# x,y,index\n1,2,1\r3,4,2\n", 2, "torn row, not x,y,index", "1,2,1\r3,4,2"),
        (b"# x,y,index\n1,2,1\n3,nan,2\n", 3, "not an integer", "nan"),
        (b"# x,y,index\n1,2,1\n3,1_0,2\n", 3, "not an integer", "1_0"),
        ("# x,y,index\n1,2,1\n3,٣,2\n".encode(), 3, "not an integer", "٣"),
        (b"# x,y,index\n1,2,1\n3,4,2\n5,6,2\n", 4, "index repeated, first on line 3", 2),
        (b"# x,y,index\n1,2,1\n3,4,3\n", 3, "index 2 is missing", 3),
        (b"# x,y,index\n1,2,0\n3,4,1\n", 2, "index is counted from 1", "0"),
        (b"# x,y,index\n1,2,-1\n", 2, "index is counted from 1", "-1"),
        (b"# x,y,index\n32768,2,1\n", 2, "x is outside -32768 … 32767", "32768"),
        (b"# x,y,index\n1,-32769,1\n", 2, "y is outside -32768 … 32767", "-32769"),
        (b"# x,y,index\n%s,2,1\n" % (b"9" * 5000), 2, "x is outside -32768 … 32767", "9" * 999),
        (b"# x,y,index\n1,2,%s\n" % (b"9" * 9999), 2, "index 1 is missing", 999999999),
        (b"# x,y,index\n1,\xff,1\n", 2, "not UTF-8 text", b"\xff"),
        (b"# x,y,index\n1,2\x00,1\n", 2, "not an integer", "2\x00"),
    ],
)  # fmt: skip
def test_frame_is_refused_with_line_and_reason(text, line, reason, value):
    with pytest.raises(BadBundle) as caught:
        parse_frames([text], ["frame_00000.txt"])
    bad = caught.value
    assert (bad.file, bad.line, bad.reason) == ("frame_00000.txt", line, reason)
    assert shown(bad.value) == shown(value)
    assert bad.exit_code == 2
    assert reason in str(bad)


def test_frame_with_other_point_count_is_named_though_it_is_the_first():
    short, *others = frames_of(np.zeros((2, 4, 5)))
    texts = [frames_of(np.zeros((2, 1, 4)))[0], *others]
    with pytest.raises(BadBundle, match=r"frame_00000\.txt: other point count than most frames, 5"):
        parse_frames(texts, names(texts))
    assert short != texts[0]


def test_bad_bundle_survives_the_way_back_from_a_worker():
    bad = BadBundle("a/frame_00001.txt", 7, "torn row", b"\xff")
    again = pickle.loads(pickle.dumps(bad))
    assert str(again) == str(bad)
    assert (again.file, again.line, again.reason, again.value) == (bad.file, 7, "torn row", b"\xff")
