"""Training state on disk: networks, their average, optimizer, generators and position. Resume is bit-exact."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fastbsn.errors import WeightsError
from fastbsn.io.weights import load_tensors, save_tensors
from fastbsn.training.identity import check_identity


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    state = optimizer.state_dict()["state"]
    return {f"optimizer.{i}.{key}": value for i, entry in state.items() for key, value in entry.items()}


def save(
    path: Path,
    networks: dict[str, nn.Module],
    average: dict[str, nn.Module],
    optimizer: torch.optim.Optimizer,
    generators: dict[str, torch.Generator],
    header: dict[str, Any],
) -> None:
    """Write one file, atomically. `header` holds configuration, step and seconds."""
    tensors = {f"network.{n}.{k}": v for n, net in networks.items() for k, v in net.state_dict().items()}
    tensors |= {f"average.{n}.{k}": v for n, net in average.items() for k, v in net.state_dict().items()}
    tensors |= _optimizer_tensors(optimizer)
    tensors |= {f"generator.{n}": g.get_state() for n, g in generators.items()}
    save_tensors(path, {k: v.detach().cpu().contiguous() for k, v in tensors.items()}, header)


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}


def load(
    path: Path,
    networks: dict[str, nn.Module],
    average: dict[str, nn.Module],
    optimizer: torch.optim.Optimizer,
    generators: dict[str, torch.Generator],
    config: dict[str, Any],
) -> dict[str, Any]:
    """Restore everything in place and return the header.

    Raises:
        TrainingError: the checkpoint is of another run; the differing keys are named.
        WeightsError: the file is damaged or does not fit the networks.
    """
    tensors, header = load_tensors(path)
    check_identity(path, header.get("config", {}), config)
    try:
        for prefix, nets in (("network", networks), ("average", average)):
            for name, net in nets.items():
                net.load_state_dict(_part(tensors, f"{prefix}.{name}."))
        for name, generator in generators.items():
            generator.set_state(tensors[f"generator.{name}"].to(torch.uint8).cpu())
    except (RuntimeError, KeyError) as error:
        raise WeightsError(f"{path}: checkpoint does not fit the networks ({error}); overwrite to start anew") from error
    state = optimizer.state_dict()
    entries: dict[int, dict[str, Tensor]] = {}
    for key, value in _part(tensors, "optimizer.").items():
        index, name = key.split(".", 1)
        entries.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": entries, "param_groups": state["param_groups"]})
    return header
