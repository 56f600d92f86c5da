"""PatchCore's memory bank, built from good training panels on many workers.

Each shard of panels chooses its own centres, and a last round chooses among all of them.

RUN/work/coreset/…          centres of each shard
RUN/models/patchcore.*      the bank
"""

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from actors.memory_bank import coreset
from actors.memory_bank.checks import FORMAT
from actors.memory_bank.coreset import greedy_coreset, merge_coresets, shard_size
from cluster.fingerprint import fingerprint
from cluster.nodes import Cluster
from cluster.shards import map_shards
from cluster.storage import Store
from pipelines.fpcb.detection import kink_filter as kink_filters
from pipelines.fpcb.detection import patches
from pipelines.fpcb.detection.cached import MapReader, Panels, Piece, read_piece
from pipelines.fpcb.detection.kink_filter import KinkFilter
from pipelines.fpcb.detection.maps import MAPS, split_maps
from pipelines.fpcb.detection.patches import PatchCoreConfig, make_patches, starts
from pipelines.fpcb.features.table import FEATURE_VERSION

BANK = "models/patchcore"
CODE = (coreset, kink_filters, patches)

_STAGE = "choose patches"
_PANELS_PER_SHARD = 8_000
_NOT_THE_CORESET = ("neighbours", "bank_kind", "bank_actors")


def memory_key(digest: str, config: PatchCoreConfig, kink_filter: KinkFilter, seed: int) -> str:
    """Return the hash of all that determines the memory bank."""
    options = {k: v for k, v in asdict(config).items() if k not in _NOT_THE_CORESET}
    return fingerprint("patchcore", digest, options, kink_filter.to_arrays(), seed, FORMAT,
                       FEATURE_VERSION, *CODE)  # fmt: skip


def build_memory(
    cluster: Cluster,
    panels: Panels,
    run: Store,
    config: PatchCoreConfig,
    kink_filter: KinkFilter,
    *,
    key: str,
    seed: int = 0,
    workers: int | None = None,
) -> int:
    """Choose the patches of good ``panels`` that the bank remembers, and write it into ``run``.

    Parameters
    ----------
    key : str
        From `memory_key`: shards finished under it are not done again.

    Returns
    -------
    int
        How many patches it remembers.
    """
    n_all = panels.size * starts(panels.n_frames, config).size
    size = min(n_all, max(config.least_coreset, round(config.coreset_share * n_all)))
    shards = [*enumerate(_cut(panels.pieces))]
    choose = partial(
        choose_patches,
        panels=panels,
        config=config,
        kink_filter=kink_filter,
        size=size,
        n_all=n_all,
        seed=seed,
    )
    done = map_shards(
        cluster, choose, shards, run / "work/coreset", fingerprint=key, label=_STAGE,
        max_in_flight=workers, verify=True,
    )  # fmt: skip
    remember = partial(
        write_memory,
        parts=done.store,
        size=size,
        config=config,
        about={"key": key, "patches": n_all},
        seed=seed,
    )
    map_shards(
        cluster, remember, [done.files], run, label="remember patches",
        fingerprint=fingerprint(key, asdict(config)), verify=True,
    )  # fmt: skip
    return size


def write_memory(
    files: Sequence[str],
    store: Store,
    *,
    parts: Store,
    size: int,
    config: PatchCoreConfig,
    about: dict[str, Any],
    seed: int,
) -> dict[str, Any]:
    """Choose among the centres of all shards, and write the bank: the work of one shard.

    A worker does it, as FAISS and torch, which the driver may load to train DREAM, should not
    share a process: each brings its own OpenMP.
    """
    from actors.memory_bank.index import MemoryBank

    chosen_by = [parts.read_arrays(name) for name in files]
    centres = [part["patches"] for part in chosen_by]
    merged = merge_coresets(centres, size, seed=(seed, 0))
    chosen = np.concatenate(centres)[merged.index]
    bank = MemoryBank(chosen, kind=config.bank_kind, seed=seed)
    # A patch is so near to a centre of its shard, and that to one that stays.
    radius = max(float(part["radius"]) for part in chosen_by) + merged.radius
    about = about | {"radius": radius}
    files = bank.save(store, BANK, about=about, feature_version=FEATURE_VERSION)
    return {"rows": bank.size, "files": sorted(files)}


def choose_patches(
    shard: tuple[int, Sequence[Piece]],
    store: Store,
    *,
    panels: Panels,
    config: PatchCoreConfig,
    kink_filter: KinkFilter,
    size: int,
    n_all: int,
    seed: int,
) -> dict[str, Any]:
    """Choose one shard's centres, and write them."""
    number, pieces = shard
    reader = MapReader(MAPS, panels.n_frames)
    found = [
        patches_of(read_piece(panels.store, piece, reader), kink_filter, config) for piece in pieces
    ]
    flat = np.concatenate([part.reshape(-1, part.shape[-1]) for part in found])
    chosen = greedy_coreset(flat, shard_size(len(flat), n_all, size), seed=(seed, number + 1))
    name = f"centres-{number:05d}.npz"
    store.write_arrays(name, patches=flat[chosen.index], radius=chosen.radius)
    return {"rows": len(flat), "files": [name], "radius": chosen.radius}


def patches_of(
    maps: npt.NDArray[Any], kink_filter: KinkFilter, config: PatchCoreConfig
) -> npt.NDArray[np.float32]:
    """Return the patches (n, windows, dim) of maps (n, 2, n_frames, places)."""
    excess, bend = split_maps(maps)
    return make_patches(kink_filter.evidence(excess), bend, kink_filter, config)


def _cut(pieces: Sequence[Piece]) -> list[list[Piece]]:
    """Shards of whole row groups, the same on any cluster.

    Few and large: the more shards choose for themselves, the wider the centres are spaced.
    """
    shards: list[list[Piece]] = []
    room = 0
    for piece in pieces:
        if room < len(piece.rows):
            shards.append([])
            room = _PANELS_PER_SHARD
        shards[-1].append(piece)
        room -= len(piece.rows)
    return shards
