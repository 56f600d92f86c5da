"""A market whose truth is known, fitted, and how much of the planted lexicon came back."""

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from cluster.errors import InputError
from cluster.lock import hold
from cluster.run_record import recorded
from cluster.storage import Store
from pipelines.news.config import NewsConfig, RunConfig
from pipelines.news.finished import MANIFEST, write_manifest
from pipelines.news.fitting.folds import FoldConfig
from pipelines.news.fitting.path import PathConfig
from pipelines.news.market.sessions import CalendarConfig
from pipelines.news.reading.ingest import InputConfig
from pipelines.news.report.page import write_report
from pipelines.news.run import NewsRun, fit
from pipelines.news.synthetic import SyntheticConfig, write_market
from pipelines.run_folder import command_of


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """A synthetic market and where to put it."""

    market: SyntheticConfig = field(default_factory=SyntheticConfig)
    engine: str = field(
        default="newton", metadata={"help": "Solver, as for tenfold news fit.", "panel": "Lasso"}
    )
    run: RunConfig = field(default_factory=lambda: RunConfig(out="demo/news"))

    def __post_init__(self) -> None:
        PathConfig(engine=self.engine)


def run_demo(config: DemoConfig) -> NewsRun:
    """Make the market, fit it, and compare the dictionary with what was planted.

    Writes ``truth.json`` beside the results, and shows it in the report.

    Raises
    ------
    InputError
        When an option or the folder cannot be used.
    """
    folder = Path(config.run.out or "demo/news")
    if "://" in str(config.run.out):
        what = "the demo makes its market on this machine"
        raise InputError("--out", what, got=config.run.out, fix="Name a local folder.")
    with hold(Store(folder) / "run", wait=config.run.wait):
        return _run_demo(config, folder)


def _run_demo(config: DemoConfig, folder: Path) -> NewsRun:
    with recorded(Store(folder / "run"), command_of("news demo", config, out=Store(folder))):
        data = folder / "data"
        write_market(config.market, data)
        run = fit(
            NewsConfig(
                input=InputConfig(
                    news=str(data / "news.parquet"), prices=str(data / "prices.parquet")
                ),
                calendar=CalendarConfig(exchange=config.market.exchange),
                folds=FoldConfig(seed=config.market.seed),
                path=PathConfig(engine=config.engine, rule="1se", stability=20, min_stability=0.8),
                run=replace(config.run, out=str(folder / "run")),
            )
        )
        lexicon = pd.read_csv(data / "lexicon.csv")
        dictionary = run.folder.read_table("dictionary.parquet").to_pandas()
        truth = compare_with_truth(dictionary, lexicon) | {"market": asdict(config.market)}
        run.folder.write_json("truth.json", truth)
        write_report(run.folder)
        write_manifest(run.folder, run.folder.read_json(MANIFEST)["input"])
    return replace(run, metrics=run.metrics | {"truth": truth})


def compare_with_truth(dictionary: pd.DataFrame, lexicon: pd.DataFrame) -> dict[str, Any]:
    """Count planted n-grams that were found, and dictionary words that were not planted.

    A planted n-gram is found when the dictionary of its target names it, or has it as an alias,
    with the sign that was planted. A dictionary word is false when neither it nor an alias was
    planted for its target.
    """
    by_target: dict[str, dict[str, int]] = {}
    for target, planted in lexicon.groupby("target"):
        words = dictionary[dictionary["target"] == target]
        signs = {
            name: word.coef > 0
            for word in words.itertuples()
            for name in (word.ngram, *word.aliases)
        }
        weights = dict(zip(planted["ngram"], planted["weight"], strict=True))
        found = sum(signs.get(ngram) == (weight > 0) for ngram, weight in weights.items())
        false = sum(
            not any(name in weights for name in (word.ngram, *word.aliases))
            for word in words.itertuples()
        )
        by_target[str(target)] = {
            "planted": len(weights),
            "found": found,
            "false": false,
            "words": len(words),
        }
    total = pd.DataFrame(by_target.values()).sum()
    return {
        "planted": int(total["planted"]),
        "found": int(total["found"]),
        "false": int(total["false"]),
        "words": int(total["words"]),
        "by_target": by_target,
    }
