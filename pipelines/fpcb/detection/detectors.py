"""Trained detectors, and what they say of rows of features.

RUN/models/detectors.json   what they were trained on
RUN/models/kink_filter.npz  the filter all of them see panels through
RUN/models/baselines.json   the two that they have to beat
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from actors.memory_bank.reweight import Bank
from actors.memory_bank.reweight import panel_scores as reweighted
from cluster.errors import InputError
from cluster.storage import Store
from pipelines.fpcb.detection.cached import MapReader
from pipelines.fpcb.detection.config import DREAM, PATCHCORE
from pipelines.fpcb.detection.kink_filter import KinkFilter, after
from pipelines.fpcb.detection.localise import Found, localise
from pipelines.fpcb.detection.maps import MAPS, split_maps
from pipelines.fpcb.detection.patches import PatchCoreConfig, departures, make_patches
from pipelines.fpcb.evaluation.baselines import BestFeature, Mahalanobis, panel_features
from pipelines.fpcb.features.table import FEATURE_VERSION

ABOUT, FILTER, BASELINES = (
    "models/detectors.json",
    "models/kink_filter.npz",
    "models/baselines.json",
)
MEASURES = ("frame_", "panel_", "map_")
"""Prefixes of feature columns; what else a row has is known of the panel."""

_TOP = 10  # places and frames of a map whose mean is a panel's score
_Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class About:
    """What detectors were trained on, as ``detectors.json`` has it."""

    detectors: tuple[str, ...]
    n_frames: int
    places: int
    feature_version: str
    features_of: dict[str, Any]
    patches: dict[str, Any]
    key: str

    def save(self, run: Store) -> None:
        """Write it into a run folder."""
        run.write_json(ABOUT, asdict(self))

    @classmethod
    def load(cls, run: Store) -> "About":
        """Return what `save` wrote.

        Raises
        ------
        InputError
            When the folder has no detectors, or damaged ones, or ones for other features.
        """
        fix = "Run `tenfold fpcb train` again."
        try:
            known = run.read_json(ABOUT)
            about = cls(**{**known, "detectors": tuple(known["detectors"])})
            PatchCoreConfig(**about.patches)
        except FileNotFoundError as error:
            raise InputError(str(run), "no trained detectors", f"a folder with {ABOUT}", fix=(
                "Name the run folder of `tenfold fpcb train` or `run`."
            )) from error  # fmt: skip
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{run}/{ABOUT}", "damaged", got=str(error), fix=fix) from error
        if about.feature_version != FEATURE_VERSION:
            raise InputError(
                f"{run}/{ABOUT}", "trained on other features", FEATURE_VERSION,
                about.feature_version, fix,
            )  # fmt: skip
        return about


@dataclass(frozen=True, eq=False)
class Detectors:
    """All that scores a panel."""

    about: About
    kink_filter: KinkFilter
    patches: PatchCoreConfig
    bank: Bank | None
    dream: Any
    baselines: Mapping[str, BestFeature | Mahalanobis]

    def columns(self, there: list[str]) -> list[str]:
        """Columns to read of a file that has ``there``."""
        wanted = {f"map_{name}" for name in MAPS}
        if self.dream is not None:
            wanted |= {*self.dream.reader.columns}
        return [
            name
            for name in there
            if name in wanted or name.startswith("panel_") or not name.startswith(MEASURES)
        ]

    def score(self, rows: pa.Table, where: str) -> pa.Table:
        """Return what is known of each panel, its scores, and the likeliest crack.

        Raises
        ------
        InputError
            For NaN, for panels of other places, or of too different a number of frames.
        """
        maps = self._maps(rows, where)
        excess, bend = split_maps(maps)
        known = [name for name in rows.column_names if not name.startswith(MEASURES)]
        columns: dict[str, Any] = {name: rows[name] for name in known}
        if self.dream is not None:
            columns[DREAM] = self._dream(maps, rows, where)[0]
        if self.bank is not None:
            columns[PATCHCORE] = self._patchcore(excess, bend)
        measured = panel_features(rows)
        columns |= {name: one.score(measured) for name, one in self.baselines.items()}
        found = localise(excess, bend, self.kink_filter)
        return pa.table(columns | _found_columns(found, rows, self.about.n_frames))

    def maps(self, rows: pa.Table, where: str) -> dict[str, _Floats]:
        """Return maps (n, n_frames, places) to look at: evidence, and each detector's."""
        maps = self._maps(rows, where)
        excess, bend = split_maps(maps)
        evidence = self.kink_filter.evidence(excess)
        drawn = {"excess": excess, "evidence": after(evidence, bend)}
        if self.dream is not None:
            drawn[DREAM] = self._dream(maps, rows, where)[1]
        if self.bank is not None:
            own = make_patches(evidence, bend, self.kink_filter, self.patches)
            _, index = self.bank.search(own.reshape(-1, own.shape[-1]), 1)
            nearest = self.bank.reconstruct(index[:, 0]).reshape(own.shape)
            drawn[PATCHCORE] = departures(
                own, nearest, excess.shape[1], self.kink_filter, self.patches
            )
        return drawn

    def _maps(self, rows: pa.Table, where: str) -> npt.NDArray[np.float16]:
        maps = MapReader(MAPS, self.about.n_frames).read(rows, where)
        if maps.shape[-1] != self.about.places:
            raise InputError(
                where, "features of another number of places", self.about.places, maps.shape[-1],
                f"Run `tenfold fpcb features` with --places {self.about.places}.",
            )  # fmt: skip
        return maps

    def _dream(
        self, maps: npt.NDArray[np.float16], rows: pa.Table, where: str
    ) -> tuple[_Floats, _Floats]:
        read_maps = self.dream.about.variant == "map"
        found = self.dream.anomaly_maps(maps if read_maps else self.dream.read(rows, where))
        return self.dream.scores(found, _TOP), found

    def _patchcore(self, excess: _Floats, bend: _Floats) -> _Floats:
        assert self.bank is not None
        evidence = self.kink_filter.evidence(excess)
        own = make_patches(evidence, bend, self.kink_filter, self.patches)
        return reweighted(own, self.bank, self.patches.neighbours)


def load_detectors(run: Store, bank: Bank | None) -> Detectors:
    """Load what `tenfold fpcb train` left in a run folder; kept by the process.

    Parameters
    ----------
    bank : Bank, optional
        Where PatchCore's memory is searched; None: without PatchCore.

    Raises
    ------
    InputError
        When a file is missing or damaged.
    """
    about = About.load(run)
    kink_filter, baselines = _load_files(run, about.key)
    dream = _load_dream(run, about.key) if DREAM in about.detectors else None
    patches = PatchCoreConfig(**about.patches)
    return Detectors(about, kink_filter, patches, bank, dream, baselines)


@lru_cache(maxsize=4)
def _load_files(run: Store, key: str) -> tuple[KinkFilter, dict[str, BestFeature | Mahalanobis]]:
    fix = "Run `tenfold fpcb train` again."
    try:
        kink_filter = KinkFilter.from_arrays(run.read_arrays(FILTER))
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{run}/{FILTER}", "damaged", got=str(error), fix=fix) from error
    kinds: dict[str, Any] = {"best_feature": BestFeature, "mahalanobis": Mahalanobis}
    where = f"{run}/{BASELINES}"
    try:
        known = dict(run.read_json(BASELINES).items())
        return kink_filter, {name: kinds[name].from_dict(known[name], where) for name in known}
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise InputError(where, "damaged", got=str(error), fix=fix) from error


@lru_cache(maxsize=4)
def _load_dream(run: Store, key: str) -> Any:
    from pipelines.fpcb.dream.model import DreamModel  # torch: not where PatchCore works alone

    return DreamModel.load(run)


def _found_columns(found: Found, rows: pa.Table, n_frames: int) -> dict[str, Any]:
    """Frames are the panel's own, which may have been filmed with more or fewer."""
    own = rows["n_frames"].to_numpy()
    scale = (own - 1) / (n_frames - 1)
    frames = {
        "found_frame": found.frame,
        "found_earliest": found.earliest,
        "found_latest": found.latest,
    }
    columns: dict[str, Any] = {
        name: np.rint(value * scale).astype(np.int32) for name, value in frames.items()
    }
    return columns | {
        "found_place": found.place,
        "found_kink_deg": found.kink_deg,
        "evidence": found.strength,
    }
