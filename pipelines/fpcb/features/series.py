"""Statistics of a series over a panel's frames: its shape, memory and spectrum."""

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]

STATISTICS = (
    "mean",
    "std",
    "max",
    "time_of_max",
    "skewness",
    "kurtosis",
    "lag1",
    "lag2",
    "dominant_hz",
    "power",
    "entropy_bits",
)
_CONSTANT = 1e-6  # spread relative to the largest value: below, a series holds nothing but rounding


def series_statistics(series: Doubles, fps: Doubles) -> dict[str, Doubles]:
    """Statistics over the last axis, named as in ``STATISTICS``.

    Moments are those of the frames at hand (no bias correction); autocorrelation at lag k is
    Σ z_t z_{t+k} / Σ z_t² with z = x − mean; the spectrum is the periodogram of z (boxcar, one
    sided), of which the largest line gives the dominant frequency and the power (units of the
    series squared), and all lines as shares of their sum the entropy, −Σ p log₂ p. A constant
    series has 0 for all but mean and max.

    Parameters
    ----------
    series : ndarray (n, k, n_frames), float64
    fps : ndarray (n,), 1/s

    Returns
    -------
    dict of ndarray (n, k)

    References
    ----------
    scipy.stats.skew, scipy.stats.kurtosis (Fisher), scipy.signal.periodogram
    (scaling="spectrum") compute the same.
    """
    n_frames = series.shape[-1]
    mean = series.sum(axis=-1) / n_frames
    centred = series - mean[..., None]
    square = centred * centred
    variance = square.sum(axis=-1) / n_frames
    varies = np.sqrt(variance) > _CONSTANT * np.abs(series).max(axis=-1)
    last = max(n_frames - 1, 1)
    statistics = {
        "mean": mean,
        "std": np.sqrt(variance),
        "max": series.max(axis=-1),
        "time_of_max": series.argmax(axis=-1) / last,
        "skewness": _over((square * centred).sum(axis=-1) / n_frames, variance**1.5, varies),
        "kurtosis": _over((square * square).sum(axis=-1) / n_frames, variance**2, varies, -3.0),
        "lag1": _over(_lagged(centred, 1), variance, varies),
        "lag2": _over(_lagged(centred, 2), variance, varies),
    }
    statistics["std"] = np.where(varies, statistics["std"], 0.0)
    statistics["time_of_max"] = np.where(varies, statistics["time_of_max"], 0.0)
    return statistics | _spectrum(centred, fps, varies)


def _spectrum(centred: Doubles, fps: Doubles, varies: npt.NDArray[np.bool_]) -> dict[str, Doubles]:
    n_frames = centred.shape[-1]
    lines = np.fft.rfft(centred, axis=-1)[..., 1:]
    power = (lines.real**2 + lines.imag**2) * (2 / n_frames**2)
    if n_frames % 2 == 0:  # the line at half the frame rate has no twin
        power[..., -1] /= 2
    strongest = power.argmax(axis=-1)
    share = _over(power, power.sum(axis=-1)[..., None], varies[..., None])
    entropy = -(share * np.log2(np.where(share > 0, share, 1.0))).sum(axis=-1)
    return {
        "dominant_hz": np.where(varies, (strongest + 1) * (fps[:, None] / n_frames), 0.0),
        "power": np.where(varies, power.max(axis=-1), 0.0),
        "entropy_bits": np.maximum(entropy, 0.0),
    }


def _lagged(centred: Doubles, lag: int) -> Doubles:
    n_frames = centred.shape[-1]
    return (centred[..., : max(n_frames - lag, 0)] * centred[..., lag:]).sum(axis=-1) / n_frames


def _over(
    numerator: Doubles, denominator: Doubles, varies: npt.NDArray[np.bool_], shift: float = 0.0
) -> Doubles:
    """Quotient plus ``shift``; 0 where the series is constant."""
    varies = np.broadcast_to(varies, numerator.shape) & (denominator > 0)
    out = np.zeros(numerator.shape)
    np.divide(numerator, denominator, out=out, where=varies)
    return np.where(varies, out + shift, 0.0)
