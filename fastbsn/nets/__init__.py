"""Networks: the blind-spot teacher, the student and the noise model."""

from fastbsn.nets.dbsn import DBSN
from fastbsn.nets.level import noise_level, noise_levels
from fastbsn.nets.network import Network
from fastbsn.nets.noise_model import (
    Noise,
    NoiseModel,
    negative_log_likelihood,
    posterior_mean,
    posterior_std,
)
from fastbsn.nets.registry import build
from fastbsn.nets.unet import UNet, pad_to_multiple

__all__ = [
    "DBSN",
    "Network",
    "Noise",
    "NoiseModel",
    "UNet",
    "build",
    "negative_log_likelihood",
    "noise_level",
    "noise_levels",
    "pad_to_multiple",
    "posterior_mean",
    "posterior_std",
]
