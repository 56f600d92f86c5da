import io
import time
import urllib.request
from contextlib import suppress

import pytest
import ray
from rich.text import Text

from cluster import progress
from cluster.progress import Progress, count, duration, gauge


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_job_log_gets_a_first_and_a_last_line_with_rate_and_remaining_time(monkeypatch):
    now = iter(range(1000))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now) / 4)
    stream = io.StringIO()
    with Progress("count n-grams", 10, "shards", stream) as shown:
        for _ in range(10):
            shown.advance()
    lines = stream.getvalue().splitlines()
    assert lines[0].startswith("count n-grams: 1/10 shards · ")
    assert lines[0].endswith(" left")
    assert lines[-1].startswith("count n-grams: 10/10 shards · ")
    assert len(lines) < 10


def test_reused_pieces_do_not_count_for_the_rate():
    stream = io.StringIO()
    with Progress("count", 8, "shards", stream) as shown:
        shown.advance(8, reused=True)
    assert stream.getvalue() == "count: 8/8 shards · 8 from an earlier run\n"


def test_failure_leaves_a_line_that_says_how_far_it_was():
    stream = io.StringIO()
    with suppress(ZeroDivisionError), Progress("count", 8, "shards", stream) as shown:
        shown.advance()
        shown.advance()
        _ = 1 / 0
    assert stream.getvalue().splitlines()[-1].endswith("stopped by ZeroDivisionError")
    assert "count: 2/8 shards" in stream.getvalue()


def test_terminal_gets_a_bar_and_a_closing_line():
    stream = Terminal()
    with Progress("solve", 2, "units", stream) as shown:
        shown.advance(note="largest gap 1e-07")
        shown.say("unit 7 again")
        shown.advance()
    text = Text.from_ansi(stream.getvalue()).plain
    assert "━" in text
    assert "solve: unit 7 again" in text
    assert text.rstrip().splitlines()[-1].startswith("solve: 2/2 units")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (185, "3 min 05 s"), (7620, "2 h 07 min")],
)
def test_durations_read_well(seconds, text):
    assert duration(seconds) == text


def test_metrics_reach_the_endpoint_that_prometheus_scrapes(cluster):
    count("tenfold_shards_done", 3, {"stage": "metrics-test"})
    count("tenfold_shards_done", 2, {"stage": "metrics-test"})
    gauge("tenfold_largest_gap", 1e-7, {"stage": "metrics-test"})
    port = ray.nodes()[0]["MetricsExportPort"]
    deadline = time.monotonic() + 30
    while True:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            ours = [line for line in answer.read().decode().splitlines() if "metrics-test" in line]
        if len(ours) >= 2 or time.monotonic() > deadline:
            break
        time.sleep(0.3)
    values = {line.split("{")[0]: float(line.split()[-1]) for line in ours}
    assert values["ray_tenfold_largest_gap"] == 1e-7
    assert 5.0 in values.values()
    assert any(name.startswith("ray_tenfold_shards_done") for name in values)
