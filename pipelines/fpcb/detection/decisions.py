"""Which panels are called NG, and what is said of them: learned on validation panels alone.

RUN/models/decision.json   the ensemble and a threshold of each detector
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cluster.errors import InputError
from cluster.storage import Store
from pipelines.fpcb.detection.config import DecisionConfig
from pipelines.fpcb.evaluation.ensemble import Ensemble, learn_ensemble
from pipelines.fpcb.evaluation.thresholds import Threshold, for_false_alarms, for_precision

DECISION = "models/decision.json"
ENSEMBLE = "ensemble"

_FOUND = ("found_frame", "found_earliest", "found_latest", "found_place", "found_kink_deg")


@dataclass(frozen=True, kw_only=True)
class Decision:
    """The ensemble, and the threshold above which each detector calls a panel NG."""

    ensemble: Ensemble
    thresholds: Mapping[str, Threshold]

    def apply(self, scores: pa.Table) -> pa.Table:
        """Add ``ensemble``, ``sure`` and ``called_ng`` to rows of scores.

        What was found of panels that are not called NG is cleared: it is noise.
        """
        members = _columns(scores, self.ensemble.members)
        one = self.ensemble.score(members)
        called = self.thresholds[ENSEMBLE].calls(one)
        found = {name: pa.array(scores[name].to_numpy(), mask=~called) for name in _FOUND}
        named = {name: scores[name] for name in scores.column_names} | found
        named |= {
            ENSEMBLE: pa.array(one),
            "sure": pa.array(self.ensemble.probability(members)),
            "called_ng": pa.array(called),
        }
        return pa.table(named)

    def save(self, run: Store) -> None:
        """Write it into a run folder."""
        thresholds = {name: value.to_dict() for name, value in self.thresholds.items()}
        run.write_json(DECISION, {"ensemble": self.ensemble.to_dict(), "thresholds": thresholds})

    @classmethod
    def load(cls, run: Store) -> Self:
        """Return what `save` wrote.

        Raises
        ------
        InputError
            When it is missing or damaged.
        """
        where, fix = f"{run}/{DECISION}", "Run `tenfold fpcb train` again."
        try:
            known: dict[str, Any] = run.read_json(DECISION)
            thresholds = {
                name: Threshold.from_dict(value, where)
                for name, value in known["thresholds"].items()
            }
            return cls(ensemble=Ensemble.from_dict(known["ensemble"], where), thresholds=thresholds)
        except FileNotFoundError as error:
            raise InputError(where, "no trained run", fix=fix) from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(where, "damaged", got=str(error), fix=fix) from error


def learn_decision(scores: pa.Table, config: DecisionConfig) -> Decision:
    """Learn on scored validation panels.

    Parameters
    ----------
    scores : table
        ``label`` and a column for each detector and baseline that has scores.

    Raises
    ------
    InputError
        When there are no good panels among them, or a precision is asked for without cracked ones.
    """
    known = scores.filter(pa.compute.is_valid(scores["label"]))
    label = known["label"].to_numpy()
    ensemble = learn_ensemble(label, _columns(known, config.detectors), config.detectors)
    one = {ENSEMBLE: ensemble.score(_columns(known, config.detectors))}
    for name in (*config.detectors, "best_feature", "mahalanobis"):
        if name in known.column_names and not known[name].null_count:
            one[name] = known[name].to_numpy().astype(np.float64)
    thresholds = {name: _threshold(label, values, config) for name, values in one.items()}
    return Decision(ensemble=ensemble, thresholds=thresholds)


def _threshold(
    label: npt.NDArray[np.integer], score: npt.NDArray[np.float64], config: DecisionConfig
) -> Threshold:
    if config.ng_precision is None:
        return for_false_alarms(label, score, config.false_alarms)
    return for_precision(label, score, config.ng_precision, config.prevalence)


def _columns(scores: pa.Table, names: tuple[str, ...]) -> npt.NDArray[np.float64]:
    return np.stack([scores[name].to_numpy() for name in names], axis=1).astype(np.float64)
