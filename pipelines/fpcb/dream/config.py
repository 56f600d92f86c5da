"""Options of DREAM; no torch is needed to read them."""

from dataclasses import dataclass, field

from cluster.errors import InputError


@dataclass(frozen=True, kw_only=True)
class CrackConfig:
    """Which cracks are simulated."""

    corrupted: float = field(
        default=0.6, metadata={"help": "Share of training panels that get a simulated crack."}
    )
    strength: tuple[float, float] = field(
        default=(2.5, 400.0),
        metadata={"help": "Least and greatest evidence for a simulated crack, standard deviations"},
    )
    from_start: float = field(
        default=0.15, metadata={"help": "Share of cracks that are there from the first frame."}
    )
    jolts: float = field(
        default=0.3, metadata={"help": "Share of cracks with which the bend jolts or sticks."}
    )

    def __post_init__(self) -> None:
        for name in ("corrupted", "from_start", "jolts"):
            if not 0 <= (value := getattr(self, name)) <= 1:
                raise InputError(f"--{name.replace('_', '-')}", "no share", "0 to 1", value)
        if not 0 < self.strength[0] <= self.strength[1]:
            raise InputError("--strength", "no range", "two rising numbers above 0", self.strength)
