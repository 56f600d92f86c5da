"""Cross-validation folds for news: forward in time with an embargo, grouped, or shuffled."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from actors.lasso.unit import TRAIN, UNUSED, VALIDATION
from cluster.errors import InputError

IntArray = npt.NDArray[np.int64]
Roles = npt.NDArray[np.int8]

FOLD_KINDS = ("time", "ticker", "day", "shuffled")


@dataclass(frozen=True, kw_only=True)
class FoldConfig:
    """How rows are held out."""

    folds: int = field(default=5, metadata={"help": "Number of folds.", "panel": "Folds"})
    fold_kind: str = field(
        default="time",
        metadata={"help": f"How to hold out: {', '.join(FOLD_KINDS)}.", "panel": "Folds"},
    )
    embargo: int | None = field(
        default=None,
        metadata={
            "help": "Sessions left out between training and validation (time and day folds); "
            "default: as many as keep their targets from overlapping.",
            "panel": "Folds",
        },
    )
    seed: int = field(
        default=0, metadata={"help": "Seed of shuffles and subsamples.", "panel": "Folds"}
    )

    def __post_init__(self) -> None:
        if self.folds < 2:
            raise InputError("--folds", "too few", expected="2 or more", got=self.folds)
        if self.fold_kind not in FOLD_KINDS:
            raise InputError(
                "--fold-kind", "unknown", expected=" or ".join(FOLD_KINDS), got=self.fold_kind
            )
        if self.embargo is not None and self.embargo < 0:
            raise InputError("--embargo", "negative", expected="0 or more", got=self.embargo)
        if self.embargo and self.fold_kind in ("ticker", "shuffled"):
            raise InputError(
                "--embargo",
                f"{self.fold_kind} folds have no sessions between training and validation",
                fix="Leave it out, or use --fold-kind time or day.",
            )
        if not 0 <= self.seed < 2**32:
            raise InputError("--seed", "out of range", "0 to 4294967295", self.seed, "Pass 0.")


def make_folds(
    config: FoldConfig, *, session: IntArray, ticker: IntArray, text_group: IntArray, embargo: int
) -> Roles:
    """Give each row its role in each fold.

    ``time``: sessions in ``folds + 1`` blocks of about equal rows; fold k trains on blocks 0 … k,
    less ``embargo`` sessions before the cut, and validates on block k + 1, never on the past.
    ``day``: whole sessions held out, and ``embargo`` sessions on either side not trained on.
    ``ticker``: whole tickers held out. ``shuffled``: rows, copies of one text together.
    A validation row whose text is also trained on is left unused, so repeats cannot leak.

    Parameters
    ----------
    session, ticker : ndarray (n_samples,)
        Session number and ticker code of each row.
    text_group : ndarray (n_samples,)
        Equal for equal texts.
    embargo : int, sessions

    Returns
    -------
    ndarray (folds, n_samples), int8

    Raises
    ------
    InputError
        When a fold has no training or no validation row.
    """
    if config.fold_kind == "time":
        roles = _forward(session, config.folds, embargo)
    else:
        groups = {"ticker": ticker, "day": session, "shuffled": text_group}[config.fold_kind]
        roles = _grouped(groups, config.folds, config.seed)
        if config.fold_kind == "day":
            _embargo_days(roles, session, embargo)
    for fold, fold_roles in enumerate(roles):
        trained = np.unique(text_group[fold_roles == TRAIN])
        leaks = (fold_roles == VALIDATION) & np.isin(text_group, trained)
        fold_roles[leaks] = UNUSED
        require_rows(fold_roles, fold)
    return roles


def require_rows(fold_roles: Roles, fold: int, target: str = "") -> None:
    """Raise an InputError when a fold cannot be trained or validated."""
    for role, name in ((TRAIN, "training"), (VALIDATION, "validation")):
        if np.count_nonzero(fold_roles == role) < 2:
            raise InputError(
                f"fold {fold}" + (f" of target {target}" if target else ""),
                f"no {name} data",
                expected=f"2 or more {name} rows",
                got=np.count_nonzero(fold_roles == role),
                fix="Use fewer --folds, a smaller --embargo, another --fold-kind, or more data.",
            )


def subsample_roles(n_samples: int, text_group: IntArray, count: int, seed: int) -> Roles:
    """Return ``count`` random halves of the rows as training roles (count, n_samples).

    Halves come in complementary pairs and keep copies of one text together.

    References
    ----------
    Shah, Samworth, "Variable selection with error control", JRSS-B 75(1), 2013.
    """
    random = np.random.default_rng(seed)
    n_groups = int(text_group.max(initial=-1)) + 1
    roles = np.full((count, n_samples), UNUSED, dtype=np.int8)
    for pair in range(0, count, 2):
        first = random.permutation(n_groups) < n_groups // 2
        roles[pair][first[text_group]] = TRAIN
        if pair + 1 < count:
            roles[pair + 1][~first[text_group]] = TRAIN
    return roles


def _forward(session: IntArray, folds: int, embargo: int) -> Roles:
    days, rows_a_day = np.unique(session, return_counts=True)
    if days.size < folds + 1:
        raise InputError(
            "--folds",
            "more blocks than sessions",
            expected=f"at least {folds + 1} sessions with news",
            got=days.size,
            fix="Use fewer --folds or more data.",
        )
    # A day belongs to the block in which its middle row falls; each block keeps at least a day.
    middle = np.cumsum(rows_a_day) - rows_a_day / 2
    cuts = np.searchsorted(middle, session.size * np.arange(1, folds + 1) / (folds + 1))
    for block in range(folds):
        lowest = cuts[block - 1] + 1 if block else 1
        cuts[block] = min(max(cuts[block], lowest), days.size - (folds - block))
    ends = np.append(days[cuts], days[-1] + 1)
    embargo = min(embargo, int(ends[-1]))
    roles = np.full((folds, session.size), UNUSED, dtype=np.int8)
    for fold in range(folds):
        cut, end = ends[fold], ends[fold + 1]
        roles[fold][session < cut - embargo] = TRAIN
        roles[fold][(session >= cut) & (session < end)] = VALIDATION
    return roles


def _embargo_days(roles: Roles, session: IntArray, embargo: int) -> None:
    """Leave unused what lies within ``embargo`` sessions of a held-out session."""
    for fold_roles in roles:
        held_out = np.unique(session[fold_roles == VALIDATION])
        after = np.searchsorted(held_out, session)
        ahead = held_out[np.minimum(after, held_out.size - 1)]
        behind = held_out[np.maximum(after - 1, 0)]
        distance = np.minimum(np.abs(ahead - session), np.abs(session - behind))
        fold_roles[(fold_roles == TRAIN) & (distance <= embargo)] = UNUSED


def _grouped(groups: IntArray, folds: int, seed: int) -> Roles:
    from sklearn.model_selection import GroupKFold  # over a second to import: not for every worker

    n_groups = np.unique(groups).size
    if n_groups < folds:
        raise InputError(
            "--folds",
            "more folds than groups",
            expected=f"at most {n_groups}",
            got=folds,
            fix="Use fewer --folds or another --fold-kind.",
        )
    splitter = GroupKFold(n_splits=folds, shuffle=True, random_state=seed)
    roles = np.full((folds, groups.size), TRAIN, dtype=np.int8)
    for fold, (_, held_out) in enumerate(splitter.split(groups, groups=groups)):
        roles[fold][held_out] = VALIDATION
    return roles
