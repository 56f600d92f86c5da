"""`tenfold fpcb generate`: synthetic panels to Parquet, shard by shard."""

from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np

from cluster.fingerprint import fingerprint
from cluster.lock import hold
from cluster.run_record import recorded
from cluster.storage import Store
from pipelines.fpcb import population, scenarios
from pipelines.fpcb.config import GENERATED_SHARD, GenerateJob
from pipelines.fpcb.dataset import (
    PANELS,
    DataSet,
    IntArray,
    describe,
    file_name,
    row_digests,
    summary_of,
)
from pipelines.fpcb.panel_table import to_table, write_panels
from pipelines.fpcb.population import SPLITS, assign
from pipelines.fpcb.scenarios import NAMES
from pipelines.fpcb.stages import data_folder, run_shards
from pipelines.fpcb.synthesis import camera, generator, physics, plan, variation
from pipelines.fpcb.synthesis.config import GenerateConfig
from pipelines.fpcb.synthesis.generator import generate
from pipelines.run_folder import command_of

GENERATOR = (camera, generator, physics, plan, population, scenarios, variation)


@dataclass(frozen=True, eq=False)
class Block:
    """The panels of one shard, all of one scenario and split."""

    split: str
    scenario: str
    index: int
    numbers: IntArray

    @property
    def file(self) -> str:
        """Where the shard lies below its part of the data set."""
        return file_name(self.split, self.scenario, self.index)


def generate_panels(job: GenerateJob) -> DataSet:
    """Make the panels of ``job`` with their points; finished shards are not made again.

    Raises
    ------
    InputError
        When an option or the folder cannot be used.
    """
    key = fingerprint("panels", job.panels, *GENERATOR)
    store = data_folder(job.shards, key)
    blocks = plan_blocks(job.panels, job.shards.shard_size)
    write = partial(write_block, config=job.panels)
    command = command_of("fpcb generate", job, out=store)
    with hold(store, wait=job.shards.wait), recorded(store, command) as record:
        done = run_shards(write, blocks, store, PANELS, key, "generate panels", job)
        data = describe(store, PANELS, done, {"generator": asdict(job.panels)})
        record.known.headline = f"{data.n_panels:,} panels"
    return data


def plan_blocks(config: GenerateConfig, shard_size: int | None) -> list[Block]:
    """Cut a data set into shards of at most ``shard_size`` panels, a scenario and split each."""
    shard_size = shard_size or GENERATED_SHARD
    scenario, split = assign(
        config.seed, config.panels, np.arange(config.panels, dtype=np.int64), config.mix
    )
    if config.scenario is not None:
        scenario = np.full(config.panels, NAMES.index(config.scenario))
    blocks = []
    for of_split, of_scenario in np.ndindex(len(SPLITS), len(NAMES)):
        numbers = np.flatnonzero((split == of_split) & (scenario == of_scenario))
        for index, start in enumerate(range(0, numbers.size, shard_size)):
            part = numbers[start : start + shard_size]
            blocks.append(Block(SPLITS[of_split], NAMES[of_scenario], index, part))
    return blocks


def write_block(block: Block, store: Store, *, config: GenerateConfig) -> dict[str, Any]:
    """Write one shard's panels; its summary is that of `pipelines.fpcb.dataset.summary_of`."""
    batch, truth = generate(config, block.numbers)
    table = to_table(batch, truth)
    write_panels(store, block.file, table)
    digest = row_digests(truth, [panel[:, :, :n] for panel, n in zip(
        batch.points, batch.n_points, strict=True
    )])  # fmt: skip
    return summary_of(table.select(["split", "scenario"]), [block.file], [digest])
