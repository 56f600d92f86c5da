"""A trained DREAM: kept as safetensors and JSON, applied in pieces of one size."""

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import nn

from cluster.errors import InputError
from cluster.storage import Store
from pipelines.fpcb.detection.cached import FrameReader, MapReader, Reader
from pipelines.fpcb.detection.kink_filter import KinkFilter
from pipelines.fpcb.detection.maps import MAPS
from pipelines.fpcb.dream.inputs import N_INPUTS, Inputs
from pipelines.fpcb.dream.networks import NetworkPair
from pipelines.fpcb.dream.tabular import Scale, TabularPair
from pipelines.fpcb.features.table import FEATURE_VERSION

WEIGHTS, ABOUT = "models/dream.safetensors", "models/dream.json"

_CHUNK = 64  # always this many, filled up with zeros: a panel's score must not depend on the rest
_FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class About:
    """What a model is.

    Attributes
    ----------
    variant : str
        ``map`` or ``tabular``.
    columns : tuple of str
        Features read, without the prefix of their level.
    n_frames, places : int
        Shape of a panel's maps (places: 1 for tabular).
    width : int
        Of the map networks.
    feature_version, fingerprint : str
        Of the features it was trained on; of all that determined the training.
    best : dict
        Epoch and validation figures of the weights.
    """

    variant: str
    columns: tuple[str, ...]
    n_frames: int
    places: int
    width: int
    feature_version: str
    fingerprint: str
    best: dict[str, Any]


class DreamModel:
    """Networks with what is known of them."""

    def __init__(self, networks: nn.Module, about: About) -> None:
        self.networks, self.about = networks.eval(), about

    @property
    def reader(self) -> Reader:
        """What reads a panel for `anomaly_maps`; refuses NaN, resamples other frame counts."""
        if self.about.variant == "map":
            return MapReader(self.about.columns, self.about.n_frames)
        return FrameReader(self.about.columns, self.about.n_frames, flat=False)

    def read(self, table: pa.Table, where: str) -> npt.NDArray[Any]:
        """Return what `anomaly_maps` takes of rows of features."""
        return self.reader.read(table, where)

    def anomaly_maps(
        self, raw: npt.NDArray[Any], device: str | torch.device = "cpu"
    ) -> npt.NDArray[np.float32]:
        """Say how much each frame and place looks cracked.

        Parameters
        ----------
        raw : ndarray
            Maps (n, channels, n_frames, places), or for the tabular variant features
            (n, n_frames, columns).
        device : str or torch.device

        Returns
        -------
        ndarray (n, n_frames, places), float32
            Log odds, which tell apart what probabilities round to 1; one place for tabular.
        """
        networks = self.networks.to(device)
        found = [np.empty((0, self.about.n_frames, self.about.places), np.float32)]
        with torch.inference_mode():
            for at in range(0, len(raw), _CHUNK):
                part = np.asarray(raw[at : at + _CHUNK], np.float32)
                padded = np.zeros((_CHUNK, *part.shape[1:]), np.float32)
                padded[: len(part)] = part
                logits = _logits(networks, torch.from_numpy(padded).to(device))
                found.append(logits.float().cpu().numpy()[: len(part)])
        return np.concatenate(found)

    @staticmethod
    def scores(maps: npt.NDArray[np.float32], top_k: int) -> npt.NDArray[np.float32]:
        """See `panel_scores`."""
        return panel_scores(maps, top_k)

    def save(self, store: Store) -> None:
        """Write weights, then what they are: a model without the latter is none."""
        state = self.networks.state_dict()
        weights = save({name: value.cpu().contiguous() for name, value in state.items()})
        store.write_bytes(WEIGHTS, weights)
        store.write_json(
            ABOUT, {"format": _FORMAT, **asdict(self.about), "checksum": checksum(weights)}
        )

    @classmethod
    def load(cls, store: Store) -> "DreamModel":
        """Read a model.

        Raises
        ------
        InputError
            When it is missing, damaged, or for another version of the features.
        """
        about, weights = read_model(store)
        if about.feature_version != FEATURE_VERSION:
            raise InputError(
                f"{store}/{ABOUT}",
                "model for another version of the features",
                FEATURE_VERSION,
                about.feature_version,
                "Train it again.",
            )
        try:
            networks = _untrained(about)
            networks.load_state_dict(load(weights))
        except (SafetensorError, RuntimeError, InputError) as error:
            raise _damaged(store, WEIGHTS, error) from error
        return cls(networks, about)


def read_model(store: Store) -> tuple[About, bytes]:
    """Return what a model is, and its weights, whose checksum is right.

    Raises
    ------
    InputError
        When it is missing or damaged.
    """
    if not store.exists(ABOUT):
        raise InputError(f"{store}/{ABOUT}", "no model", fix="Train one with `tenfold fpcb train`.")
    try:
        known = store.read_json(ABOUT)
        known.pop("format")
        expected = known.pop("checksum")
        about = About(**{**known, "columns": tuple(known["columns"])})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(store, ABOUT, error) from error
    try:
        weights = store.read_bytes(WEIGHTS)
    except FileNotFoundError as error:
        raise _damaged(store, WEIGHTS, error) from error
    if checksum(weights) != expected:
        raise _damaged(store, WEIGHTS, ValueError("the checksum is not that of the JSON beside it"))
    return about, weights


def checksum(data: bytes) -> str:
    """Return the blake2b hash of ``data`` as 32 hexadecimal digits."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def panel_scores(maps: npt.NDArray[np.float32], top_k: int) -> npt.NDArray[np.float32]:
    """Return the mean of each panel's ``top_k`` largest values (n,)."""
    flat = maps.reshape(len(maps), -1)
    k = min(top_k, flat.shape[1])
    return np.sort(np.partition(flat, -k, axis=1)[:, -k:], axis=1).mean(axis=1)


def _logits(networks: nn.Module, raw: torch.Tensor) -> torch.Tensor:
    if isinstance(networks, TabularPair):
        n, n_frames, width = raw.shape
        return networks(networks.standardise(raw.reshape(-1, width)))[1].reshape(n, n_frames, 1)
    assert isinstance(networks, NetworkPair)
    return networks(networks.inputs(raw))[1].squeeze(1)


def _untrained(about: About) -> nn.Module:
    make: dict[str, Callable[[], nn.Module]] = {"map": lambda: _map(about), "tabular": lambda: (
        TabularPair(Scale(about.columns, *np.ones((2, len(about.columns)), np.float32)))
    )}  # fmt: skip
    if about.variant not in make or (about.variant == "map" and about.columns != MAPS):
        raise InputError("model", f"of another kind: {about.variant} on {about.columns}")
    return make[about.variant]()


def _map(about: About) -> nn.Module:
    square = np.zeros((about.places, about.places), np.float32)
    return NetworkPair(Inputs(KinkFilter(square, square)), N_INPUTS, about.width)


def _damaged(store: Store, name: str, error: Exception) -> InputError:
    got = str(error).splitlines()[0] if str(error) else type(error).__name__
    return InputError(f"{store}/{name}", "damaged model", got=got, fix="Train it again.")
