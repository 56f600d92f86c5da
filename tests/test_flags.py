"""Flags derived from configuration dataclasses: defaults, lists, files and numbers."""

import dataclasses
import json
from dataclasses import dataclass, field

import pytest
import typer
from typer.testing import CliRunner

from cluster.config import ClusterConfig
from cluster.errors import InputError
from pipelines.flags import arguments_of, build, flags_of, with_flags_of
from pipelines.fpcb.config import FeatureJob, GenerateJob, ImportJob
from pipelines.fpcb.detection.config import RunJob, ScoreJob, TrainJob
from pipelines.fpcb.synthesis.config import GenerateConfig
from pipelines.news.audit import AuditConfig
from pipelines.news.config import NewsConfig
from pipelines.news.demo import DemoConfig
from pipelines.news.fitting.path import PathConfig
from pipelines.news.reading.ingest import InputConfig
from pipelines.news.score import ScoreConfig


@dataclass(frozen=True, kw_only=True)
class Inner:
    words: tuple[str, ...] = field(default=("a", "b"), metadata={"help": "Words.", "panel": "P"})
    alphas: tuple[float, ...] = field(default=(), metadata={"help": "Alphas."})
    count: int = field(default=3, metadata={"help": "Count."})


@dataclass(frozen=True, kw_only=True)
class Outer:
    news: str = field(metadata={"help": "News."})
    workers: int | None = field(default=None, metadata={"help": "Workers."})
    fast: bool = field(default=False, metadata={"help": "Fast."})
    inner: Inner = field(default_factory=Inner)


def run(*arguments):
    """Run a command with the flags of Outer; return its configuration, or the failed result."""
    app = typer.Typer()
    seen = []

    @app.command()
    @with_flags_of(Outer)
    def command(config: Outer, *, extra: int = 7) -> None:
        """Do nothing."""
        seen.append((config, extra))

    result = CliRunner().invoke(app, list(arguments))
    return seen[0] if seen else result


def test_defaults_are_the_dataclasses():
    assert run("--news", "n") == (Outer(news="n"), 7)


def test_flags_reach_the_configuration_they_belong_to():
    line = "--news n --workers 4 --fast --words x,y --alphas 0.5,1e-3 --count 9 --extra 1"
    config, extra = run(*line.split())
    inner = Inner(words=("x", "y"), alphas=(0.5, 1e-3), count=9)
    assert config == Outer(news="n", workers=4, fast=True, inner=inner)
    assert extra == 1


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("", ()),
        ("one", ("one",)),
        (" one , two words ,, ", ("one", "two words")),
        ("é,한국", ("é", "한국")),
    ],
)
def test_lists_are_comma_separated(text, items):
    assert run("--news", "n", "--words", text)[0].inner.words == items


@pytest.mark.parametrize(
    "content",
    [
        b"profit warning\nbuy, now\n\n  sell  \n",
        b"profit warning\r\nbuy, now\r\nsell",
        b"\xef\xbb\xbfprofit warning\nbuy, now\nsell\n",
    ],
    ids=["unix", "windows", "byte order mark"],
)
def test_a_file_has_an_item_a_line(tmp_path, content):
    path = tmp_path / "words.txt"
    path.write_bytes(content)
    config, _ = run("--news", "n", "--words", f"@{path}")
    assert config.inner.words == ("profit warning", "buy, now", "sell")


def test_numbers_may_come_from_a_file(tmp_path):
    path = tmp_path / "alphas.txt"
    path.write_text("0.5\n0.25\n")
    assert run("--news", "n", "--alphas", f"@{path}")[0].inner.alphas == (0.5, 0.25)


@pytest.mark.parametrize("name", ["missing.txt", "", "latin.txt"])
def test_a_file_that_cannot_be_read_is_refused(tmp_path, name):
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9\n")
    with pytest.raises(InputError, match="--words: cannot read"):
        build(Outer, {"news": "n", "words": f"@{tmp_path / name}"})


@pytest.mark.parametrize("text", ["0.1,x", "1e", "0.1;0.2", "@numbers"])
def test_numbers_that_are_none_are_refused(tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "numbers").write_text("0.1\nmany\n")
    with pytest.raises(InputError, match="--alphas: not a list of numbers"):
        build(Outer, {"news": "n", "alphas": text})


@pytest.mark.parametrize("arguments", [[], ["--news", "n", "--count", "x"], ["--nope"]])
def test_missing_wrong_and_unknown_flags_end_with_code_2(arguments):
    assert run(*arguments).exit_code == 2


@pytest.mark.parametrize(
    ("config", "required"),
    [(NewsConfig, {"news": "n", "prices": "p"}), (ScoreConfig, {"text": "t"}), (AuditConfig, {})],
)
def test_flags_of_every_job_give_its_defaults_back(config, required):
    flags = flags_of(config)
    names = [flag.name for flag in flags]
    assert len(set(names)) == len(names)
    values = {flag.name: flag.default for flag in flags if flag.default is not flag.empty}
    assert {flag.name for flag in flags if flag.default is flag.empty} <= set(required)
    built = build(config, values | required)
    for part in dataclasses.fields(config):
        nested = getattr(built, part.name)
        if dataclasses.is_dataclass(nested):
            own = {name: required[name] for name in required if hasattr(nested, name)}
            assert nested == type(nested)(**own)
        elif part.name not in required:
            assert nested == part.default


@pytest.mark.parametrize("config", [NewsConfig, ScoreConfig, AuditConfig])
def test_every_flag_has_help_and_a_panel(config):
    for flag in flags_of(config):
        option = flag.annotation.__metadata__[0]
        assert option.help.endswith((".", ")")), flag.name
        assert option.rich_help_panel


def test_a_configuration_survives_json():
    config = build(NewsConfig, {"news": "n", "prices": "p", "alpha_grid": "0.1,0.05"})
    saved = json.loads(json.dumps(dataclasses.asdict(config)))
    assert saved["path"]["alpha_grid"] == [0.1, 0.05]


def parsed(config):
    """Return the configuration that the flags of ``config`` make."""
    app, seen = typer.Typer(), []

    @app.command()
    @with_flags_of(type(config))
    def command(config) -> None:
        """Do nothing."""
        seen.append(config)

    result = CliRunner().invoke(app, arguments_of(config))
    assert result.exit_code == 0, result.output
    return seen[0]


@pytest.mark.parametrize(
    "config",
    [
        Outer(news="-n", workers=3, fast=True, inner=Inner(words=(), alphas=(1e-17, 0.1), count=2)),
        NewsConfig(input=InputConfig(news="a b.csv", prices="@p"), path=PathConfig(alphas=7)),
        RunJob(panels=GenerateConfig(panels=40), train=TrainJob(cluster=ClusterConfig(num_cpus=2))),
        GenerateJob(),
        FeatureJob(assign_splits=True),
        ImportJob(),
        ScoreJob(out="s3://bucket/scores", format="csv"),
        DemoConfig(),
    ],
    ids=lambda config: type(config).__name__,
)
def test_arguments_make_the_configuration_again(config):
    assert parsed(config) == config


def test_arguments_hold_the_defaults_too():
    assert "--count=3" in arguments_of(Outer(news="n"))


@pytest.mark.parametrize(
    "config",
    [
        Inner(words=("a,b",)),
        Inner(words=("@a",)),
        Inner(words=(" a",)),
        Inner(words=("",)),
        ClusterConfig(dashboard=False),
    ],
    ids=repr,
)
def test_configuration_that_no_flags_make_has_no_arguments(config):
    assert arguments_of(config) is None
