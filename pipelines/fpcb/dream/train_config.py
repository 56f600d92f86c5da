"""How DREAM is trained; no torch is needed to read it."""

import math
from dataclasses import dataclass, field

from cluster.errors import InputError
from pipelines.fpcb.dream.config import CrackConfig

VARIANTS = ("map", "tabular")
DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = ("auto", "float32", "bfloat16", "float16")


@dataclass(frozen=True, kw_only=True)
class ShiftConfig:
    """Simulated cracks among standardised features."""

    shifted_share: float = field(default=0.5, metadata={"help": "Rows with a simulated crack."})
    shift_min: float = field(default=0.3, metadata={"help": "Smallest shift, standard deviations."})
    shift_max: float = field(default=8.0, metadata={"help": "Largest shift, standard deviations."})

    def __post_init__(self) -> None:
        if not 0 < self.shifted_share < 1:
            raise InputError("--shifted-share", "not a share", "0 to 1", self.shifted_share)
        if not 0 < self.shift_min <= self.shift_max < math.inf:
            got = f"{self.shift_min} and {self.shift_max}"
            raise InputError("--shift-min", "range", "0 < smallest <= largest", got)


@dataclass(frozen=True, kw_only=True)
class DreamConfig:
    """How DREAM is trained."""

    variant: str = field(
        default="map", metadata={"help": "map (frame × place maps) or tabular (frame features)."}
    )
    width: int = field(
        default=16, metadata={"help": "Channels of the map networks at half resolution."}
    )
    epochs: int = field(default=8, metadata={"help": "Rounds of training at most."})
    epoch_panels: int = field(
        default=8_000,
        metadata={"help": "Good panels of a round; of more, each round takes others."},
    )
    patience: int = field(
        default=5, metadata={"help": "Epochs without a better validation score, then it stops."}
    )
    batch_size: int = field(
        default=256,
        metadata={"help": "Panels (tabular: frames) of a step; learning rate follows its root."},
    )
    learning_rate: float = field(default=2e-3, metadata={"help": "Its peak, at a batch of 256."})
    weight_decay: float = field(default=1e-3, metadata={"help": "Of AdamW."})
    warmup_share: float = field(
        default=0.05, metadata={"help": "Share of the steps in which the learning rate rises."}
    )
    clip_norm: float = field(default=1.0, metadata={"help": "Largest norm of a gradient."})
    ssim_weight: float = field(default=0.5, metadata={"help": "Weight of 1 − SSIM in the loss."})
    focal_weight: float = field(default=5.0, metadata={"help": "Weight of the focal loss."})
    validation_panels: int = field(
        default=2000, metadata={"help": "Good validation panels that an epoch is judged on."}
    )
    lanes: int = field(
        default=4,
        metadata={"help": "Parts of a batch, dealt out to workers: the most workers there can be."},
    )
    seed: int = field(default=0, metadata={"help": "Of weights, order and simulated cracks."})
    workers: int | None = field(
        default=None, metadata={"help": "Training processes; default a core or GPU each."}
    )
    loader_workers: int | None = field(
        default=None,
        metadata={"help": "Reading processes of each; default 2 with a GPU, else 0."},
    )
    device: str = field(default="auto", metadata={"help": "auto, cpu, cuda or mps."})
    precision: str = field(
        default="auto",
        metadata={
            "help": "auto (bfloat16 on cuda, float16 on mps, float32 on cpu), float32, bfloat16 "
            "or float16."
        },
    )
    max_failures: int = field(
        default=3, metadata={"help": "Lost workers after which training gives up."}
    )

    cracks: CrackConfig = field(default_factory=CrackConfig)
    shifts: ShiftConfig = field(default_factory=ShiftConfig)

    def __post_init__(self) -> None:
        for option, value, known in (
            ("--variant", self.variant, VARIANTS),
            ("--device", self.device, DEVICES),
            ("--precision", self.precision, PRECISIONS),
        ):
            if value not in known:
                raise InputError(option, "unknown", ", ".join(known), repr(value))
        if not 64 <= self.batch_size <= 4096:
            raise InputError("--batch-size", "out of range", "64 to 4096", self.batch_size)
        if self.precision == "float16" and self.device == "cpu":
            raise InputError("--precision", "float16 on a CPU", fix="Take bfloat16 or float32.")
        whole = {
            "epochs": 1,
            "epoch_panels": 1,
            "patience": 1,
            "validation_panels": 1,
            "lanes": 1,
            "seed": 0,
            "workers": 1,
            "loader_workers": 0,
            "max_failures": 0,
        }
        for name, least in whole.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise InputError(_option(name), "too few", f"{least} or more", value)
        for name in ("learning_rate", "clip_norm"):
            if not 0 < getattr(self, name) < math.inf:
                raise InputError(_option(name), "not usable", "above 0", getattr(self, name))
        for name in ("weight_decay", "ssim_weight", "focal_weight"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(_option(name), "not usable", "0 or more", getattr(self, name))
        if not 0 <= self.warmup_share < 1:
            raise InputError("--warmup-share", "not a share", "0 to 1", self.warmup_share)
        if self.workers is not None and self.workers > self.lanes:
            raise InputError(
                "--workers",
                "more than lanes",
                f"{self.lanes} or fewer",
                self.workers,
                "Raise --lanes, which changes the result slightly, or ask for fewer.",
            )


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")
