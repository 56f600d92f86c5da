"""A market whose truth is known: texts with planted n-grams that move its prices.

Each cell (ticker, session) sums the weights of the planted n-grams in its distinct texts, one sum
a target (``E, M, R, V``). The prices are then made so that ``build_targets`` gives back

    excess_return      E ± (M₀ + M), less the mean over tickers; the sign is a coin toss
    abs_excess_return  M₀ + M ± E, nearly: M₀ is large enough that the sign seldom turns
    log_range          R₀ + R + noise
    volume_change      V + noise − a pull of volume towards its usual level

so that all four are linear in the words, and none of the words of one target moves another.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from cluster.errors import InputError
from pipelines.news.market.sessions import CalendarConfig, Sessions, make_sessions

WEIGHTS = {
    "excess_return": 0.009,
    "abs_excess_return": 0.006,
    "log_range": 0.004,
    "volume_change": 0.15,
}
"""Targets with planted n-grams, and the size of a typical weight (its sign alternates)."""

_USUAL_MOVE = 0.018  # M₀
_USUAL_RANGE = 0.035  # R₀
_VOLUME_PULL = 0.1
_BACKGROUND = 8_000
_PLANTED_AT_MOST = 6  # in one text
_UNITS = (8, 24)  # words or planted n-grams in a text, first and last length
_COMMON_RANK = 40  # words before that rank are never part of a planted n-gram
_BLOCK = 50_000
_HOURS = np.timedelta64(6 * 60, "m")
_SYLLABLES = np.array([c + v for c in "bdfgklmnprstvz" for v in "aiou"])


@dataclass(frozen=True, kw_only=True)
class SyntheticConfig:
    """Size and strength of a synthetic market."""

    documents: int = field(default=20_000, metadata={"help": "Texts, repeats included."})
    tickers: int = field(default=120, metadata={"help": "Tickers."})
    sessions: int = field(default=300, metadata={"help": "Trading sessions."})
    words: int = field(default=12, metadata={"help": "Planted n-grams a target."})
    planted_per_text: float = field(default=3.0, metadata={"help": "Planted n-grams a text."})
    signal: float = field(default=1.0, metadata={"help": "Factor on all weights; 0: no effect."})
    noise: float = field(default=1.0, metadata={"help": "Factor on the noise of the targets."})
    repeats: float = field(default=0.1, metadata={"help": "Share of texts that are re-posts."})
    after_hours: float = field(
        default=0.3, metadata={"help": "Share of texts between the close before and the opening."}
    )
    exchange: str = field(default="XNYS", metadata={"help": "Exchange calendar."})
    first: str = field(default="2022-01-03", metadata={"help": "First day."})
    seed: int = field(default=0, metadata={"help": "Seed."})

    def __post_init__(self) -> None:
        smallest = {"documents": 1, "tickers": 2, "sessions": 3, "words": 1}
        for name, least in smallest.items():
            if (value := getattr(self, name)) < least:
                raise InputError(f"--{name}", "too few", f"{least} or more", value, "Ask for more.")
        if self.seed < 0:
            raise InputError("--seed", "negative", "0 or more", self.seed, "Pass 0.")
        for name in ("repeats", "after_hours"):
            if not 0 <= (value := getattr(self, name)) < 1:
                option = f"--{name.replace('_', '-')}"
                raise InputError(option, "no share", "0 ≤ share < 1", value, "Pass 0.1.")
        try:
            np.datetime64(self.first, "D")
        except ValueError as error:
            fix = "Write it as 2022-01-03."
            raise InputError("--first", "not a date", got=self.first, fix=fix) from error
        for name in ("planted_per_text", "signal", "noise"):
            if not 0 <= (value := getattr(self, name)) < np.inf:
                option = f"--{name.replace('_', '-')}"
                raise InputError(option, "out of range", "0 or more", value, "Pass 1.")


def make_market(config: SyntheticConfig) -> tuple[pa.Table, pa.Table, pa.Table]:
    """Make a market; the same configuration gives the same tables.

    Returns
    -------
    news : ticker, published_at timestamp[us, UTC], text; in order of time
    prices : ticker, date, open, high, low, close, adj_close, volume, per; some tickers split
    lexicon : target, ngram, weight (times ``signal``, in the target's unit), kind
        Kinds: ``unigram``; ``bigram`` of words that also occur apart from each other, without
        effect; ``twin``, a bigram whose words occur nowhere else.
    """
    rng = np.random.default_rng(config.seed)
    sessions = _first_sessions(config)
    words = _Words(config, rng)
    unique = config.documents - int(config.repeats * config.documents)
    ticker = rng.integers(config.tickers, size=unique)
    session = rng.integers(1, config.sessions, size=unique)  # the first has no return
    effects = np.zeros((config.tickers, config.sessions, len(WEIGHTS)))
    texts = []
    for start in range(0, unique, _BLOCK):
        block = slice(start, min(start + _BLOCK, unique))
        text, effect = words.write(block.stop - block.start, config.planted_per_text, rng)
        texts.append(text)
        np.add.at(effects, (ticker[block], session[block]), effect)
    stamps = _stamps(sessions, session, config.after_hours, rng)

    again = rng.integers(unique, size=config.documents - unique)
    left = (sessions.cutoffs_utc[session[again]] - stamps[again]).astype(np.int64)
    later = (left * rng.random(again.size)).astype("timedelta64[us]")
    source = np.concatenate([np.arange(unique), again])
    published = np.concatenate([stamps, stamps[again] + later])
    order = np.argsort(published, kind="stable")
    source = source[order]
    names = pa.array([f"T{i:03d}" for i in range(config.tickers)])
    news = pa.table(
        {
            "ticker": names.take(pa.array(ticker[source])),
            "published_at": pa.array(published[order]).cast(pa.timestamp("us", "UTC")),
            "text": pa.chunked_array(texts).take(pa.array(source)),
        }
    )
    return news, _prices(config, sessions, names, effects, rng), words.lexicon


def write_market(config: SyntheticConfig, folder: Path) -> None:
    """Write ``news.parquet``, ``prices.parquet`` and ``lexicon.csv`` into ``folder``."""
    news, prices, lexicon = make_market(config)
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(news, folder / "news.parquet", compression="zstd")
    pq.write_table(prices, folder / "prices.parquet", compression="zstd")
    pyarrow.csv.write_csv(lexicon, folder / "lexicon.csv")


class _Words:
    """The vocabulary (background words by falling frequency, then planted n-grams) as units."""

    def __init__(self, config: SyntheticConfig, rng: np.random.Generator) -> None:
        targets = list(WEIGHTS)
        kinds = ["unigram", "unigram", "twin", "bigram"]
        plan = [(t, i, kinds[i % 4]) for t in range(len(targets)) for i in range(config.words)]
        taken = 2 * len(plan)  # two words each, though a unigram needs but one
        background = max(_BACKGROUND, _COMMON_RANK + taken)
        spelled = _spell(background + taken, rng)
        # Words of planted bigrams of the second kind are common, but not the most common.
        common = _COMMON_RANK + np.arange(taken)
        weights = np.zeros((len(plan), len(targets)))
        ngrams = []
        self._pairs: list[tuple[int, int]] = []
        for j, (t, i, kind) in enumerate(plan):
            sign = 1 if (i // 4 + i) % 2 == 0 else -1
            size = rng.uniform(0.9, 1.1) * WEIGHTS[targets[t]]
            weights[j, t] = sign * size * config.signal
            one, two = (common if kind == "bigram" else background + np.arange(taken))[2 * j :][:2]
            ngrams.append(spelled[one] if kind == "unigram" else f"{spelled[one]} {spelled[two]}")
            if kind == "bigram":
                self._pairs.append((int(one), int(two)))
        self._units = pa.array([*spelled[:background], *ngrams])
        self._background = background
        self._weights = weights
        frequency = 1 / (np.arange(background) + 2.7)
        self._cumulated = np.cumsum(frequency) / frequency.sum()
        self.lexicon = pa.table(
            {
                "target": [targets[t] for t, _, _ in plan],
                "ngram": ngrams,
                "weight": weights.sum(axis=1),
                "kind": [kind for _, _, kind in plan],
            }
        )

    def write(self, n: int, rate: float, rng: np.random.Generator) -> tuple[pa.Array, np.ndarray]:
        """Return ``n`` texts and the sums of their planted weights (n, n_targets)."""
        length = rng.integers(_UNITS[0], _UNITS[1] + 1, size=n)
        unit = np.searchsorted(self._cumulated, rng.random((n, _UNITS[1])))
        present = np.arange(_UNITS[1]) < length[:, None]
        for one, two in self._pairs:  # chance neighbours would carry no effect: part them
            chance = (unit[:, :-1] == one) & (unit[:, 1:] == two)
            unit[:, 1:][chance] = 0

        n_planted = len(self._weights)
        most = min(_PLANTED_AT_MOST, n_planted)
        count = np.minimum(rng.poisson(rate, size=n), most)
        # Steps that never wrap around: no text has the same planted n-gram twice.
        steps = rng.integers(1, n_planted // most + 1, size=(n, most))
        steps[:, 0] = rng.integers(n_planted, size=n)
        planted = steps.cumsum(axis=1) % n_planted
        used = np.arange(most) < count[:, None]
        effect = (self._weights[planted] * used[:, :, None]).sum(axis=1)
        place = np.argsort(np.where(present, rng.random(unit.shape), 2.0), axis=1)[:, :most]
        rows = np.broadcast_to(np.arange(n)[:, None], used.shape)
        unit[rows[used], place[used]] = self._background + planted[used]

        offsets = pa.array(np.concatenate([[0], np.cumsum(length)]), pa.int32())
        lists = pa.ListArray.from_arrays(offsets, self._units.take(pa.array(unit[present])))
        return pc.binary_join(lists, " "), effect


def _spell(n: int, rng: np.random.Generator) -> np.ndarray:
    """Return ``n`` different made-up words of three syllables; none is a stop word."""
    codes = rng.permutation(_SYLLABLES.size**3)[:n]
    digits = [codes // _SYLLABLES.size**power % _SYLLABLES.size for power in range(3)]
    return np.array(
        ["".join(parts) for parts in zip(*(_SYLLABLES[d] for d in digits), strict=True)]
    )


def _first_sessions(config: SyntheticConfig) -> Sessions:
    start = np.datetime64(config.first, "D")
    found = make_sessions(
        CalendarConfig(exchange=config.exchange), start, start + 2 * config.sessions + 30
    )
    n = config.sessions
    return Sessions(found.exchange, found.dates[:n], found.cutoffs_utc[:n], found.opens_utc)


def _stamps(
    sessions: Sessions, session: np.ndarray, after_hours: float, rng: np.random.Generator
) -> np.ndarray:
    """Return a time in the trading hours of each session, or between them and the close before."""
    cutoff = sessions.cutoffs_utc
    before = np.concatenate([[sessions.opens_utc], cutoff[:-1]])
    opening = cutoff - _HOURS
    late = rng.random(session.size) < after_hours
    start = np.where(late, before[session], opening[session])
    end = np.where(late, opening[session], cutoff[session])
    width = (end - start).astype(np.int64)
    # 1 - random is in (0, 1]: never the cut-off before, which belongs to the session before.
    return start + np.ceil(width * (1 - rng.random(session.size))).astype("timedelta64[us]")


def _prices(
    config: SyntheticConfig,
    sessions: Sessions,
    names: pa.Array,
    effects: np.ndarray,
    rng: np.random.Generator,
) -> pa.Table:
    """Return prices that have the ``effects`` (n_tickers, n_sessions, n_targets)."""
    shape = effects.shape[:2]
    E, M, R, V = np.moveaxis(effects, 2, 0)

    def noise(scale: float) -> np.ndarray:
        return config.noise * scale * rng.standard_normal(shape)

    # As many ups as downs each session, so that the usual move leaves the market where it is.
    coin = rng.permuted(np.tile(np.resize([1.0, -1.0], shape[0])[:, None], shape[1]), axis=0)
    market = 0.008 * rng.standard_normal(shape[1])
    steps = market + E + coin * (_USUAL_MOVE + M + noise(0.003))
    close = 50 * np.exp(rng.normal(0, 0.5, (shape[0], 1)) + np.cumsum(steps, axis=1))

    spread = np.maximum(_USUAL_RANGE + R + noise(0.004), 0.002)
    at_close, at_open = rng.random(shape), rng.random(shape)
    low = close * np.exp(-at_close * spread)
    high, opening = low * np.exp(spread), low * np.exp(at_open * spread)

    change = V + noise(0.15)
    level = np.zeros(shape)
    for s in range(1, shape[1]):
        level[:, s] = (1 - _VOLUME_PULL) * level[:, s - 1] + change[:, s]
    volume = np.exp(rng.normal(15, 1, (shape[0], 1)) + level)

    split = np.ones(shape)  # every tenth ticker splits two to one, halfway
    split[::10, : shape[1] // 2] = 2.0
    quarter = np.arange(shape[1]) // 63
    earnings = np.exp(0.05 * rng.standard_normal((shape[0], quarter[-1] + 1)).cumsum(axis=1))
    columns = {
        "open": opening * split,
        "high": high * split,
        "low": low * split,
        "close": close * split,
        "adj_close": close,
        "volume": np.rint(volume),
        "per": close / (close[:, :1] / 15 * earnings[:, quarter]),
    }
    index = {
        "ticker": names.take(pa.array(np.repeat(np.arange(shape[0]), shape[1]))),
        "date": pa.array(np.tile(sessions.dates, shape[0])),
    }
    return pa.table(index | {name: pa.array(grid.ravel()) for name, grid in columns.items()})
