import numpy as np
import pytest

from cluster.errors import InputError
from pipelines.flags import build, flags_of
from pipelines.fpcb.synthesis.config import GenerateConfig
from pipelines.fpcb.synthesis.generator import generate


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("panels", 0),
        ("scenario", "cracked"),
        ("mix", "1M"),
        ("frames", 1),
        ("fps", 0.0),
        ("fps", -30.0),
        ("fps", float("nan")),
        ("noise", -0.1),
        ("noise", float("nan")),
        ("width_px", 100),
        ("height_px", 40_000),
        ("px_per_mm", 0.0),
        ("px_per_mm", 100.0),
        ("variation", "some"),
        ("onset", "late"),
        ("severity", (1.5, 0.5)),
        ("severity", ()),
        ("kink_deg", (0.0, 3.0)),
        ("kink_deg", (1.0, 2.0, 3.0)),
        ("seed", -1),
    ],
)
def test_config_names_the_option_when_its_value_cannot_be_used(option, value):
    expected = "--width-px" if option == "px_per_mm" and value else f"--{option.replace('_', '-')}"
    with pytest.raises(InputError) as caught:
        GenerateConfig(**{option: value})
    assert caught.value.where == expected


def test_config_is_built_from_the_text_of_its_flags():
    assert "kink_deg" in [flag.name for flag in flags_of(GenerateConfig)]
    assert build(GenerateConfig, {"kink_deg": "0.1,3", "panels": 5}).kink_deg == (0.1, 3.0)


def test_generate_refuses_numbers_outside_the_data_set():
    with pytest.raises(InputError, match="--panels"):
        generate(GenerateConfig(panels=10), [3, 10])


@pytest.mark.parametrize("scale", [0.5, 1.0, 3.0])
def test_panels_stay_clear_of_the_edges_of_the_smallest_image(scale):
    width_px, height_px = int(520 * scale), int(420 * scale)
    config = GenerateConfig(
        panels=200, px_per_mm=10 * scale, width_px=width_px, height_px=height_px
    )
    batch, _ = generate(config, np.arange(200))
    for row, count in enumerate(batch.n_points):
        points = batch.points[row, :, :, :count]
        assert points.min() > 0
        assert points[0].max() < width_px - 1
        assert points[1].max() < height_px - 1
