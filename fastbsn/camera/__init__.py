"""The noise of photographs: measured on noisy images, drawn anew for pseudo-labels.

Camera noise is correlated over pixels and channels, since demosaicking, denoising in the camera and JPEG come after the sensor. Its
spectrum, its colours and its level matter, its dependence on intensity hardly does.
"""

from fastbsn.camera.bank import load_bank, save_bank
from fastbsn.camera.sampler import CameraSampler, Mixture
from fastbsn.camera.statistics import CameraNoise, measure

__all__ = ["CameraNoise", "CameraSampler", "Mixture", "load_bank", "measure", "save_bank"]
