"""Networks by name: the one place that turns a saved configuration into a module."""

from __future__ import annotations

from typing import Any

from torch import nn

from fastbsn.errors import InputError
from fastbsn.nets.dbsn import DBSN
from fastbsn.nets.noise_model import NoiseModel
from fastbsn.nets.unet import UNet

NETWORKS: dict[str, type[nn.Module]] = {"dbsn": DBSN, "unet": UNet, "noise_model": NoiseModel}


def build(name: str, config: dict[str, Any]) -> nn.Module:
    """Make the network `name` from the keyword arguments in `config`; an unknown name or key is an InputError."""
    if name not in NETWORKS:
        raise InputError(f"network {name!r} is unknown; expected one of {', '.join(NETWORKS)}")
    try:
        return NETWORKS[name](**config)
    except TypeError as error:
        raise InputError(f"network {name!r}: configuration {config} is not accepted ({error})") from error
