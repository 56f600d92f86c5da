"""What a training of DREAM consists of: data, variant, batches; and the key of its result."""

from dataclasses import asdict, dataclass

from cluster.fingerprint import fingerprint
from cluster.storage import Store
from pipelines.fpcb.dataset import FEATURES, DataSet
from pipelines.fpcb.detection import kink_filter as kink_filters
from pipelines.fpcb.detection.cached import Panels, good_panels
from pipelines.fpcb.detection.kink_filter import KinkFilter
from pipelines.fpcb.detection.maps import MAPS, filter_of
from pipelines.fpcb.dream import config as crack_options
from pipelines.fpcb.dream import cracks, inputs, learner, losses, networks, objective, tabular
from pipelines.fpcb.dream import stream as streams
from pipelines.fpcb.dream.model import About
from pipelines.fpcb.dream.objective import MapObjective, Objective, TabularObjective, Weights
from pipelines.fpcb.dream.stream import StreamPlan
from pipelines.fpcb.dream.train_config import DreamConfig
from pipelines.fpcb.features.table import FEATURE_VERSION

CODE = (
    crack_options, cracks, inputs, kink_filters, learner, losses, networks, objective, streams,
    tabular,
)  # fmt: skip

_NOT_THE_RESULT = ("workers", "loader_workers", "max_failures", "device")


@dataclass(frozen=True, kw_only=True)
class Work:
    """All that a training worker needs."""

    objective: Objective
    config: DreamConfig
    training: Panels
    validation: Panels
    plan: StreamPlan
    batch: int
    about: About
    device: str
    out: Store

    @property
    def live(self) -> str:
        """Name of the file that says how far training is."""
        return f"checkpoints/dream-{self.about.fingerprint}/history.json"


def training_key(data: DataSet, config: DreamConfig, kink_filter: KinkFilter | None = None) -> str:
    """Return the hash of all that determines the weights, on one kind of device."""
    options = {k: v for k, v in asdict(config).items() if k not in _NOT_THE_RESULT}
    given = kink_filter.to_arrays() if kink_filter is not None else None
    return fingerprint("dream", options, data.about[FEATURES]["digest"], FEATURE_VERSION, given,
                       *CODE)  # fmt: skip


def plan_training(
    data: DataSet, out: Store, config: DreamConfig, kink_filter: KinkFilter | None, device: str
) -> Work:
    """Find the panels, fit what is not trained, and cut epochs into batches.

    Raises
    ------
    InputError
        For data that cannot be used.
    """
    training, validation = good_panels(data, "train"), good_panels(data, "val")
    goal: Objective
    if config.variant == "map":
        fitted = kink_filter or filter_of(data, training)
        columns: tuple[str, ...] = MAPS
        places = fitted.places
        goal = MapObjective(
            n_frames=training.n_frames,
            width=config.width,
            kink_filter=fitted,
            cracks=config.cracks,
            weights=Weights(ssim=config.ssim_weight, focal=config.focal_weight),
        )
    else:
        scale = tabular.measure_scale(training, tabular.camera_columns())
        columns, places = scale.columns, 1
        goal = TabularObjective(n_frames=training.n_frames, scale=scale, shifts=config.shifts)
    items = training.size * goal.items_per_panel
    # A set smaller than a batch makes batches of its own size.
    part = max(1, min(config.batch_size, items) // config.lanes)
    batch = part * config.lanes
    steps = max(1, min(items, config.epoch_panels * goal.items_per_panel) // batch)
    plan = StreamPlan(
        lanes=config.lanes, part=part, steps=steps, buffer=goal.buffer, seed=config.seed
    )
    about = About(
        variant=config.variant,
        columns=columns,
        n_frames=training.n_frames,
        places=places,
        width=config.width,
        feature_version=FEATURE_VERSION,
        fingerprint=training_key(data, config, kink_filter),
        best={},
    )
    return Work(
        objective=goal,
        config=config,
        training=training,
        validation=validation.first(config.validation_panels),
        plan=plan,
        batch=batch,
        about=about,
        device=device,
        out=out,
    )
