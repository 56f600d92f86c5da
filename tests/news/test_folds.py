"""Folds: nothing leaks, nothing trains on the future, and what cannot be is refused."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from actors.lasso.unit import TRAIN, UNUSED, VALIDATION
from cluster.errors import InputError
from pipelines.news.fitting.folds import (
    FOLD_KINDS,
    FoldConfig,
    make_folds,
    require_rows,
    subsample_roles,
)

QUICK = settings(deadline=None, max_examples=60)


def make_rows(seed, n=200, sessions=25, tickers=9, texts=150):
    rng = np.random.default_rng(seed)
    session = rng.choice(
        rng.choice(100, sessions, replace=False), n, p=rng.dirichlet([1] * sessions)
    )
    return {
        "session": session.astype(np.int64),
        "ticker": rng.integers(0, tickers, n),
        "text_group": rng.integers(0, texts, n),
    }


def folds_of(rows, kind, folds, embargo, seed=0):
    config = FoldConfig(folds=folds, fold_kind=kind, seed=seed)
    try:
        return make_folds(config, **rows, embargo=embargo)
    except InputError:
        assume(False)


@QUICK
@given(
    seed=st.integers(0, 10**6),
    kind=st.sampled_from(FOLD_KINDS),
    folds=st.integers(2, 6),
    embargo=st.integers(0, 4),
)
def test_no_text_is_both_trained_on_and_validated(seed, kind, folds, embargo):
    rows = make_rows(seed)
    for roles in folds_of(rows, kind, folds, embargo):
        trained = set(rows["text_group"][roles == TRAIN])
        assert not trained & set(rows["text_group"][roles == VALIDATION])
        assert np.count_nonzero(roles == TRAIN) >= 2
        assert np.count_nonzero(roles == VALIDATION) >= 2


@QUICK
@given(seed=st.integers(0, 10**6), folds=st.integers(2, 6), embargo=st.integers(0, 8))
def test_time_folds_never_train_on_the_future_nor_within_the_embargo(seed, folds, embargo):
    rows = make_rows(seed)
    session = rows["session"]
    previous_end = -1
    for roles in folds_of(rows, "time", folds, embargo):
        train, validation = session[roles == TRAIN], session[roles == VALIDATION]
        assert validation.min() - train.max() > embargo
        # All of the past is used, and the blocks follow one another.
        assert (roles[session <= train.max()] == TRAIN).all()
        assert validation.min() > previous_end
        previous_end = validation.max()


@QUICK
@given(seed=st.integers(0, 10**6), folds=st.integers(2, 6))
def test_time_folds_validate_every_session_after_the_first_block_once(seed, folds):
    rows = make_rows(seed) | {"text_group": np.arange(200)}
    roles = folds_of(rows, "time", folds, 0)
    validated = (roles == VALIDATION).sum(axis=0)
    first = rows["session"][roles[0] == VALIDATION].min()
    np.testing.assert_array_equal(validated, rows["session"] >= first)
    for session in np.unique(rows["session"]):
        assert (
            roles[:, rows["session"] == session].T[0] == roles[:, rows["session"] == session].T
        ).all()


def test_time_blocks_hold_about_equal_rows():
    session = np.repeat(np.arange(120), 5)
    rows = {"session": session, "ticker": session * 0, "text_group": np.arange(600)}
    roles = make_folds(FoldConfig(folds=5), **rows, embargo=2)
    assert (roles == VALIDATION).sum(axis=1).tolist() == [100] * 5
    assert (roles == TRAIN).sum(axis=1).tolist() == [90, 190, 290, 390, 490]


@QUICK
@given(
    seed=st.integers(0, 10**6),
    kind=st.sampled_from(["ticker", "day", "shuffled"]),
    folds=st.integers(2, 6),
)
def test_grouped_folds_hold_out_whole_groups_and_every_row_once(seed, kind, folds):
    rows = make_rows(seed) | ({} if kind == "shuffled" else {"text_group": np.arange(200)})
    roles = folds_of(rows, kind, folds, 0, seed=seed)
    assert ((roles == VALIDATION).sum(axis=0) == 1).all()
    assert (roles != UNUSED).all()
    groups = rows[{"ticker": "ticker", "day": "session", "shuffled": "text_group"}[kind]]
    for group in np.unique(groups):
        members = roles[:, groups == group]
        assert (members == members[:, :1]).all()


def test_the_seed_decides_the_shuffle():
    rows = make_rows(1)
    first, again, other = (folds_of(rows, "shuffled", 4, 0, seed=s) for s in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@pytest.mark.parametrize(
    ("rows", "options", "embargo", "words"),
    [
        ({"session": np.arange(5)}, {"folds": 5}, 0, "more blocks than sessions"),
        ({"session": np.arange(40)}, {"folds": 2}, 30, "no training data"),
        (
            {"session": np.arange(40), "text_group": np.zeros(40, int)},
            {"folds": 3},
            0,
            "no validation",
        ),
        ({"ticker": np.arange(40) % 3}, {"folds": 4, "fold_kind": "ticker"}, 0, "more folds than"),
        ({"text_group": np.arange(40) % 2}, {"folds": 3, "fold_kind": "shuffled"}, 0, "more folds"),
        ({"session": np.arange(40) % 2}, {"folds": 3, "fold_kind": "day"}, 0, "more folds than"),
    ],
)
def test_folds_that_cannot_be_are_refused(rows, options, embargo, words):
    n = 40 if next(iter(rows.values())).size == 40 else 5
    plain = {"session": np.arange(n), "ticker": np.zeros(n, int), "text_group": np.arange(n)}
    with pytest.raises(InputError, match=words):
        make_folds(FoldConfig(**options), **(plain | rows), embargo=embargo)


def test_a_target_defined_nowhere_in_a_fold_is_named():
    with pytest.raises(InputError, match=r"fold 3 of target log_range.*no validation data"):
        require_rows(np.array([TRAIN, TRAIN, VALIDATION], dtype=np.int8), 3, "log_range")


@pytest.mark.parametrize(
    ("options", "flag"),
    [
        ({"folds": 1}, "--folds"),
        ({"fold_kind": "weekly"}, "--fold-kind"),
        ({"embargo": -1}, "--embargo"),
        ({"seed": -1}, "--seed"),
    ],
)
def test_options_that_cannot_be_are_refused(options, flag):
    with pytest.raises(InputError, match=flag):
        FoldConfig(**options)


@QUICK
@given(seed=st.integers(0, 10**6), count=st.integers(1, 7))
def test_subsamples_are_complementary_halves_that_keep_texts_together(seed, count):
    group = np.random.default_rng(seed).integers(0, 31, 90)
    roles = subsample_roles(90, group, count, seed)
    assert roles.shape == (count, 90)
    n_groups = group.max() + 1
    for half in roles:
        trained = set(group[half == TRAIN])
        assert not trained & set(group[half != TRAIN])
        assert len(trained) <= n_groups // 2 + 1
    for first, second in zip(roles[::2], roles[1::2], strict=False):
        np.testing.assert_array_equal((first == TRAIN) ^ (second == TRAIN), True)


def test_days_within_the_embargo_of_a_held_out_day_are_unused():
    rng = np.random.default_rng(0)
    session = rng.integers(0, 60, 500)
    ticker = rng.integers(0, 5, 500)
    config = FoldConfig(folds=4, fold_kind="day")
    roles = make_folds(config, session=session, ticker=ticker, text_group=np.arange(500), embargo=2)
    for fold in roles:
        held_out = np.unique(session[fold == VALIDATION])
        for row in range(500):
            nearest = np.abs(held_out - session[row]).min()
            wanted = VALIDATION if nearest == 0 else UNUSED if nearest <= 2 else TRAIN
            assert fold[row] == wanted


@pytest.mark.parametrize("kind", ["ticker", "shuffled"])
def test_embargo_is_refused_where_no_session_lies_between(kind):
    with pytest.raises(InputError, match="--embargo"):
        FoldConfig(fold_kind=kind, embargo=3)
