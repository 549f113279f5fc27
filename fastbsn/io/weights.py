"""Weights and other tensors in safetensors files, whose header holds our JSON under `__metadata__["fastbsn"]`. No pickle.

A file is checked before anything is allocated from it: its JSON is strict, and a network is first built without storage
and compared with the tensors that are really there.
"""

from __future__ import annotations

import json
import math
import os
from typing import Any

import torch
from safetensors.torch import load as deserialize
from safetensors.torch import save as serialize
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from fastbsn.errors import FileFormatError, InputError, WeightsError
from fastbsn.io.atomic import read_bytes, write_bytes
from fastbsn.nets.network import Network
from fastbsn.nets.registry import NETWORKS, build

PathLike = str | os.PathLike[str]

KEY = "fastbsn"
MAX_FILE = 2**31  # bytes
MAX_HEADER = 2**24  # bytes of JSON
MAX_DEPTH = 32  # of nested JSON
MAX_RADIUS = 2**13  # pixels; a deeper U-Net would pad every image to gigabytes
_COUNTS = ("modules", "depth")  # configuration keys that are numbers of layers, not of channels


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key occurs twice")
    return result


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is not a finite number")
    return value


def _depth(value: Any) -> int:
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max(map(_depth, children), default=0)


def _strict_json(text: str | bytes) -> Any:
    """JSON without duplicate keys, NaN, infinity, lone surrogates or deep nesting; anything else is a ValueError."""
    if len(text) > MAX_HEADER:
        raise ValueError(f"{len(text)} bytes of JSON; expected at most {MAX_HEADER}")
    if isinstance(text, bytes):
        text = text.decode("utf-8")
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_float=_number, parse_constant=_number)
        depth = _depth(value)
        json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("JSON is nested too deeply") from None
    if depth > MAX_DEPTH:
        raise ValueError(f"JSON is nested {depth} deep; expected at most {MAX_DEPTH}")
    return value


def _read_header(data: bytes) -> dict[str, Any]:
    """Our JSON object from the bytes of a safetensors file."""
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > min(len(data) - 8, MAX_HEADER):
        raise ValueError(f"the header should have {length} bytes, and the file has {len(data)}")
    outer = _strict_json(data[8 : 8 + length])
    metadata = outer.get("__metadata__") if isinstance(outer, dict) else None
    if not isinstance(metadata, dict) or not isinstance(metadata.get(KEY), str):
        raise ValueError(f"the header has no {KEY!r} entry, so fastbsn did not write it")
    header = _strict_json(metadata[KEY])
    if not isinstance(header, dict):
        raise ValueError(f"the {KEY!r} entry is not a JSON object")
    return header


def tensor_bytes(tensors: dict[str, Tensor], header: dict[str, Any], name: PathLike = "tensors") -> bytes:
    """The file that `save_tensors` writes; `name` stands in the message.

    Raises:
        WeightsError: the header is not standard JSON (NaN, keys that are not strings).
    """
    try:
        text = json.dumps(header, allow_nan=False)
        if _strict_json(text) != header:
            raise ValueError("it changes when written as JSON (tuples or keys that are not strings?)")
    except (TypeError, ValueError) as error:
        raise WeightsError(f"{name}: the header cannot be stored: {error}; use strings, finite numbers, lists and dicts") from error
    # Clones, because safetensors refuses tensors that share memory or are not contiguous.
    stored = {key: t.detach().cpu().clone(memory_format=torch.contiguous_format) for key, t in tensors.items()}
    return bytes(serialize(stored, metadata={KEY: text}))


def save_tensors(path: PathLike, tensors: dict[str, Tensor], header: dict[str, Any]) -> None:
    """Write tensors of any shape and dtype, and a JSON object that describes them, to a safetensors file.

    Equal input gives an equal file, byte for byte.

    Raises:
        WeightsError: the header is not standard JSON (NaN, keys that are not strings).
        StorageError: the write did not complete.
    """
    write_bytes(path, tensor_bytes(tensors, header, path))


def header_length(start: bytes) -> int:
    """Length in bytes of the part of a safetensors file that `parse_header` needs, from its first 8 bytes."""
    return 8 + min(int.from_bytes(start[:8], "little"), MAX_HEADER)


def parse_header(data: bytes, name: PathLike) -> dict[str, Any]:
    """The JSON object of `save_tensors`, from the beginning of the file.

    Raises:
        WeightsError: damaged, or not written by fastbsn.
    """
    try:
        return _read_header(data)
    except Exception as error:
        raise WeightsError(f"{name}: not a usable tensor file: {error}; make it again") from error


def parse_tensors(data: bytes, name: PathLike) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """`load_tensors` of a file that is in memory; `name` stands in the message."""
    try:
        header = _read_header(data)
        return {key: tensor.clone() for key, tensor in deserialize(data).items()}, header
    except Exception as error:  # safetensors documents no exceptions, and a damaged file provokes several kinds
        raise WeightsError(f"{name}: not a usable weights file: {error}; download or train it again") from error


def load_tensors(path: PathLike) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a file of `save_tensors`: the tensors in their stored dtype, and the header.

    Raises:
        InputError: no such file.
        WeightsError: truncated, damaged, too large, or not written by fastbsn.
    """
    try:
        data = read_bytes(path, MAX_FILE)
    except InputError:
        raise
    except (FileFormatError, OSError) as error:
        raise WeightsError(f"{path}: not a usable weights file: {error}; download or train it again") from error
    return parse_tensors(data, path)


def save_networks(path: PathLike, networks: dict[str, nn.Module], header: dict[str, Any], dtype: torch.dtype | None = None) -> None:
    """Write networks to one file: tensors "{name}.{state-dict key}", and type and configuration in header["networks"].

    Args:
        path: of the safetensors file.
        networks: by name, without dots; each an instance of a class in `fastbsn.nets.registry`.
        header: further JSON (metrics, provenance).
        dtype: to store the weights in, for instance torch.float16; default as they are.

    Raises:
        WeightsError: a weight is not finite (in `dtype`), or a network or name that cannot be stored.
        StorageError: the write did not complete.
    """
    types = {cls: name for name, cls in NETWORKS.items()}
    tensors, described = {}, {}
    for name, net in networks.items():
        if type(net) not in types or "." in name:
            raise WeightsError(
                f"{path}: network {name!r} is a {type(net).__name__}; expected one of {', '.join(NETWORKS)}, no dot in the name"
            )
        described[name] = {"type": types[type(net)], "config": net.config}
        for key, tensor in net.state_dict().items():
            tensors[f"{name}.{key}"] = stored = tensor.to(dtype)
            if not torch.isfinite(stored).all():
                raise WeightsError(f"{path}: {name}.{key} is not finite as {stored.dtype}; nothing was written")
    save_tensors(path, tensors, {**header, "networks": described})


class _Uninitialized(TorchFunctionMode):
    """Skips random initialization, which on the meta device imports the compiler: 1 s and 80 MB."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return args[0] if func in (Tensor.normal_, Tensor.uniform_) else func(*args, **(kwargs or {}))


def _build(described: Any, tensors: dict[str, Tensor]) -> nn.Module:
    """The network that `described` names, without storage; a configuration larger than the tensors is refused first."""
    if not isinstance(described, dict) or set(described) != {"type", "config"} or not isinstance(described["config"], dict):
        raise ValueError('its description is not {"type": ..., "config": {...}}')
    config = described["config"]
    largest = max((n for tensor in tensors.values() for n in tensor.shape if tensor.numel()), default=0)
    for key, value in config.items():
        limit = len(tensors) if key in _COUNTS else largest
        if isinstance(value, int) and not 0 <= value <= limit:
            raise ValueError(f"its configuration says {key}={value}, and the tensors in the file allow at most {limit}")
    with torch.device("meta"), _Uninitialized():
        net = build(described["type"], config)
    if net.config != config:
        raise ValueError(f"its configuration {config} is not complete; expected {net.config}")
    if isinstance(net, Network) and net.radius > MAX_RADIUS:
        raise ValueError(f"its receptive field reaches {net.radius} pixels; expected at most {MAX_RADIUS}")
    return net


def _load(described: Any, tensors: dict[str, Tensor]) -> nn.Module:
    net = _build(described, tensors)
    expected = {key: tensor.shape for key, tensor in net.state_dict().items()}
    if expected.keys() != tensors.keys():
        missing, extra = sorted(expected.keys() - tensors.keys()), sorted(tensors.keys() - expected.keys())
        raise ValueError(f"{len(missing)} tensors are missing {missing[:3]} and {len(extra)} are too many {extra[:3]}")
    for key, tensor in tensors.items():
        if tensor.shape != expected[key]:
            raise ValueError(f"tensor {key} has shape {list(tensor.shape)}; expected {list(expected[key])}")
        if not tensor.is_floating_point():
            raise ValueError(f"tensor {key} is {tensor.dtype}; expected floating point")
        if not torch.isfinite(tensor).all():
            raise ValueError(f"tensor {key} has values that are not finite")
    net.load_state_dict({key: tensor.float() for key, tensor in tensors.items()}, assign=True)
    return net.eval()


def load_networks(path: PathLike) -> tuple[dict[str, nn.Module], dict[str, Any]]:
    """Read a file of `save_networks`: float32 networks in eval mode on the CPU, by name, and the header.

    Raises:
        InputError: no such file.
        WeightsError: damaged, unknown network or configuration, missing, extra or misshapen tensors, or values not finite.
    """
    tensors, header = load_tensors(path)
    described = header.get("networks")
    if not isinstance(described, dict) or not described:
        raise WeightsError(f"{path}: the header names no networks; expected a file of fastbsn fit, train or distill")
    parts: dict[str, dict[str, Tensor]] = {name: {} for name in described}
    for key, tensor in tensors.items():
        name, _, rest = key.partition(".")
        if name not in parts:
            raise WeightsError(f"{path}: tensor {key} belongs to none of the networks {', '.join(parts)}")
        parts[name][rest] = tensor
    networks = {}
    for name, part in parts.items():
        try:
            networks[name] = _load(described[name], part)
        except Exception as error:  # a hostile configuration fails in torch in many ways
            raise WeightsError(f"{path}: network {name!r}: {error}; this file is damaged or of another version") from error
    return networks, header
