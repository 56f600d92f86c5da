"""What the camera makes of a panel: sway and shake, noise, bad light, whole pixels."""

import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from pipelines.fpcb.synthesis.variation import CAMERA_MODES

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Single = npt.NDArray[np.float32]

ORIGIN = (0.42, 0.52)
"""Where in the image the clamped end is, in shares of its width and height."""

SHAKE_PX = 0.5  # at 10 px/mm
SCALE_JITTER = 0.015
OUTLIER_PX = 3.0
SPIKE_PX = 2.5
DRIFT_GROWTH = 0.02

# By camera mode; the last column, the mix, has half of the first three.
EXTRA_NOISE = np.array([0.5, 0.0, 0.0, 0.0, 0.25])
OUTLIERS = np.array([0.0, 1.0, 0.0, 0.0, 0.5])
DRIFT = np.array([0.0, 0.0, 1.0, 0.0, 0.5])
JITTERS = np.array([mode == "scale_jitter" for mode in CAMERA_MODES])

_LEVELS = 1 << 16


def sway(seconds: Floats, amplitude_px: Floats, frequency_hz: Floats, phase: Floats) -> Floats:
    """Return the slow sideways swing of each panel (n, n_frames), px."""
    angle = 2 * np.pi * frequency_hz[:, None] * seconds + phase[:, None]
    return amplitude_px[:, None] * np.sin(angle)


def shake(
    seconds: Floats, crack_frame: Ints, shake_hz: Floats, damping: Floats, lasts_s: Floats
) -> Floats:
    """Return the shake after the crack (n, n_frames), as shares of its amplitude.

    exp(−damping · cycles) · sin(2π · cycles) for ``lasts_s`` seconds; 0 where shake_hz is 0.
    """
    since = seconds - seconds[crack_frame][:, None]
    cycles = shake_hz[:, None] * np.maximum(since, 0.0)
    moving = (since >= 0) & (since < lasts_s[:, None])
    swing: Floats = np.exp(-damping[:, None] * cycles) * np.sin(2 * np.pi * cycles)
    return np.where(moving, swing, 0.0)


def drift(start_px: Floats, camera_mode: Ints, n_frames: int) -> Floats:
    """Return the drift of the camera (n, 2, n_frames), px: it grows by 2 % of its start a frame."""
    growth = 1.0 + DRIFT_GROWTH * np.arange(n_frames)
    return (DRIFT[camera_mode][:, None] * start_px)[:, :, None] * growth


def scale_jitter(u: Floats, camera_mode: Ints, strength: float) -> Floats:
    """Return the factor on the size of the panel in each frame (n, n_frames), from u in [0, 1)."""
    wanders = JITTERS[camera_mode][:, None] * strength * SCALE_JITTER
    return 1.0 + wanders * (2.0 * u - 1.0)


def noise_std(noise_px: float, jitter_px: float, camera_mode: int) -> float:
    """Return the standard deviation of the noise, the mode's own and that of bad light, px.

    A sum of independent normal numbers is normal: one draw a coordinate serves them all.
    """
    return math.hypot(noise_px, EXTRA_NOISE[camera_mode] * noise_px, jitter_px)


def draw_noise(stream: np.random.Generator, size: int, std: float) -> Single:
    """Return normal noise of ``size`` coordinates, px, from 16 bits of the stream each.

    The bits pick one of 65,536 equally likely values, the normal distribution's means between its
    quantiles (standard deviation 1, largest 4.4): a quarter of the time of the ziggurat, and far
    finer than the whole pixels that the points become.
    """
    noise = np.empty(size, np.float32)
    # All indices are in range; of numpy's modes, wrap alone writes to `out` without a detour.
    np.take(_normal_values(), _random_16_bits(stream, size), out=noise, mode="wrap")
    noise *= np.float32(std)
    return noise


def add_strays(noise: Single, stream: np.random.Generator, share: float, reach_px: float) -> None:
    """Move ``share`` of the points of ``noise`` (2, n) by up to ±``reach_px`` in x and in y.

    Each point strays on its own: the gaps between strays are geometric numbers, of which ten
    standard deviations more are drawn than are needed on average.
    """
    n = noise.shape[1]
    enough = math.ceil(n * share + 10 * math.sqrt(n * share) + 10)
    stray = np.cumsum(stream.geometric(share, enough)) - 1
    stray = stray[: np.searchsorted(stray, n)]
    noise[:, stray] += stream.uniform(-reach_px, reach_px, (2, stray.size)).astype(np.float32)


def to_pixels(points: npt.NDArray[np.floating], out: npt.NDArray[np.int16]) -> None:
    """Round points to whole pixels, into ``out``; they must lie within ±32,767 px."""
    np.rint(points, out=points)
    np.copyto(out, points, casting="unsafe")


def hold_inside(points: npt.NDArray[np.int16], width_px: int, height_px: int) -> None:
    """Move points (2, …) outside the image to its edge, in place."""
    for axis, size in enumerate((width_px, height_px)):
        np.clip(points[axis], np.int16(0), np.int16(size - 1), out=points[axis])


def _random_16_bits(stream: np.random.Generator, size: int) -> npt.NDArray[np.uint16]:
    words = stream.bit_generator.random_raw(-(-size // 4))
    return words.astype("<u8", copy=False).view("<u2")[:size]


@lru_cache(maxsize=1)
def _normal_values() -> Single:
    quantiles = ndtri(np.arange(_LEVELS + 1) / _LEVELS)
    edges = np.exp(-(quantiles**2) / 2) / np.sqrt(2 * np.pi)
    values = _LEVELS * (edges[:-1] - edges[1:])  # mean of each equally likely slice
    return (values / np.sqrt(np.mean(values**2))).astype(np.float32)
