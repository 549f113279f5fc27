"""Fused operations: each has one name, a plain PyTorch reference, and a dispatch to a faster backend where one is usable."""

from fastbsn.ops.dispatch import backend
from fastbsn.ops.masked_conv import masked_conv2d, masked_conv2d_reference
from fastbsn.ops.mdc import mdc_module, mdc_module_reference, mdc_modules
from fastbsn.ops.phases import batch_to_space, outside_extent, space_to_batch
from fastbsn.ops.residual import residual_module, residual_module_reference, residual_modules
from fastbsn.ops.unet import estimated_noise, estimated_noise_reference

__all__ = [
    "backend",
    "batch_to_space",
    "estimated_noise",
    "estimated_noise_reference",
    "masked_conv2d",
    "masked_conv2d_reference",
    "mdc_module",
    "mdc_module_reference",
    "mdc_modules",
    "outside_extent",
    "residual_module",
    "residual_module_reference",
    "residual_modules",
    "space_to_batch",
]
