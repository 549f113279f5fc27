"""The student as an ONNX graph for images of any number and size: padding and cropping are part of it.

The graph is written node by node rather than traced: a trace fixes sizes, or needs symbolic shapes that differ between
versions of PyTorch.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fastbsn.errors import BackendError, InputError
from fastbsn.int8 import rounded
from fastbsn.io.atomic import write_bytes
from fastbsn.nets import UNet
from fastbsn.nets.unet import SLOPE, upsample_weight

OPSET = 17


def export_onnx(net: UNet, path: str | Path) -> None:
    """Write `net` to an ONNX file: input "noisy" and output "denoised", float32 [N, C, H, W], any N, H, W >= 1.

    Values are in data-range units (8-bit values divided by 255, for instance) and not clipped.

    Raises:
        BackendError: the package onnx is not installed.
        StorageError: the write did not complete.
    """
    write_bytes(path, onnx_model(net))


def onnx_model(net: UNet, parts: int = 0, int8: bool = False) -> bytes:
    """The same as bytes; or, for engines that are handed prepared images, the estimated noise alone.

    Args:
        parts: 0: the whole denoiser. Otherwise input "image", [N, parts * C, H, W] with H and W multiples of `net.multiple`, of which the
            image is the sum (two in bfloat16, which would round it), and output "noise" [N, C, H, W].
        int8: what is read (`int8.rounded`) is rounded to 256 values of its range in `net.ranges`, and the weights for it to 127 steps
            either side of zero, one scale per output channel and phase: QuantizeLinear and DequantizeLinear, for an engine that makes
            INT8 convolutions of them.

    Raises:
        BackendError: the package onnx is not installed.
    """
    try:
        import onnx
    except ImportError as error:
        raise BackendError("ONNX export needs the package onnx; install it with: pip install 'fastbsn[onnx]'") from error
    channels = net.config["in_channels"]
    ports = (("image", parts * channels), ("noise", channels)) if parts else (("noisy", channels), ("denoised", channels))
    ends = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", c, "H", "W"]) for name, c in ports]
    nodes, constants = _unet(net, onnx, parts, int8)
    graph = onnx.helper.make_graph(nodes, "fastbsn_student", ends[:1], ends[1:], constants)
    opset = onnx.helper.make_opsetid("", OPSET)
    model = onnx.helper.make_model(graph, producer_name="fastbsn", opset_imports=[opset], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


def _unet(net: UNet, onnx: Any, parts: int, int8: bool) -> tuple[list[Any], list[Any]]:
    """Nodes and constants of `UNet.forward`, without upsampled or joined tensors.

    Nearest upsampling and a 3x3 convolution are four 2x2 convolutions in low resolution, one for each phase of the output, with
    pre-summed weights: 4/9 of the multiplications.
    """
    nodes: list[Any] = []
    constants: list[Any] = []
    ranges = {name: net.ranges[name] for name in rounded(net)} if int8 and net.ranges else {}

    def constant(name: str, values: Any) -> str:
        array = values.cpu().numpy() if isinstance(values, torch.Tensor) else np.array(values)
        constants.append(onnx.numpy_helper.from_array(array, name))
        return name

    def node(operator: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        output = output or f"{operator}_{len(nodes)}"
        nodes.append(onnx.helper.make_node(operator, inputs, [output], **attributes))
        return output

    def convolution(source: str, name: str, weight: torch.Tensor, *bias: str, **attributes: Any) -> str:
        x, weight = at[source], weight.detach().float()
        if source not in ranges:
            return node("Conv", x, constant(name, weight), *bias, **attributes)
        if source not in read:
            low, high = ranges[source]
            step = (high - low) / 255
            grid = constant(f"{source}.step", np.float32(step)), constant(f"{source}.zero", np.uint8(round(-low / step)))
            read[source] = node("DequantizeLinear", node("QuantizeLinear", x, *grid), *grid)
        scale = weight.abs().amax((1, 2, 3)).clamp_min(1e-12) / 127
        steps = constant(name, (weight / scale[:, None, None, None]).round().to(torch.int8))
        return node("Conv", read[source], node("DequantizeLinear", steps, constant(f"{name}.scale", scale), axis=0), *bias, **attributes)

    def upsampled(name: str, source: str, weight: torch.Tensor) -> str:
        transposed, phases = upsample_weight(weight).transpose(0, 1), []
        for i, j in ((0, 0), (0, 1), (1, 0), (1, 1)):
            kernel = transposed[:, :, [3 - i, 1 - i]][..., [3 - j, 1 - j]]
            pads = [1 - i, 1 - j, i, j]
            phases.append(convolution(source, f"{name}.phase{i}{j}", kernel, kernel_shape=[2, 2], pads=pads))
        return node("DepthToSpace", node("Concat", *phases, axis=1), blocksize=2)

    def mirrored(x: str, axis: int) -> str:
        """`pixels.mirrored` up to the next multiple."""
        n = node("Squeeze", node("Shape", "noisy", start=axis, end=axis + 1))
        length = node("Add", n, node("Mod", node("Neg", n), multiple))  # of the divisor's sign, as in Python
        period = node("Max", one, node("Sub", node("Add", n, n), two))
        i = node("Mod", node("Range", zero, length, one), period)
        return node("Gather", x, node("Min", i, node("Sub", period, i)), axis=axis)

    at, read = {"image": "image"}, dict[str, str]()  # what there is, and what is read of it in INT8
    if not parts:
        zero, one, two, multiple = (constant(name, i) for name, i in (("zero", 0), ("one", 1), ("two", 2), ("multiple", net.multiple)))
        size = node("Shape", "noisy", start=2, end=4)
        at = {"image": mirrored(mirrored("noisy", 2), 3)}
    for layer, module in zip(net.layers, net.convolutions, strict=True):
        weights = list(module.weight.detach().split(layer.in_channels, 1))
        if layer.inputs[-1] == "image":
            weights[-1] = weights[-1].repeat(1, max(1, parts), 1, 1)
        bias = constant(f"{layer.name}.bias", module.bias.detach().float())
        x = convolution(layer.inputs[-1], f"{layer.name}.weight", weights[-1], bias, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
        if len(weights) == 2:  # the other input is upsampled
            x = node("Add", x, upsampled(layer.name, layer.inputs[0], weights[0]))
        if layer.activated:
            x = node("LeakyRelu", x, alpha=SLOPE)
        at[layer.result] = node("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2]) if layer.pooled else x
    if parts:
        node("Identity", x, output="noise")
        return nodes, constants
    cropped = node("Slice", x, constant("origin", [0, 0]), size, constant("axes", [2, 3]))
    node("Sub", "noisy", cropped, output="denoised")
    return nodes, constants


def average(students: Sequence[UNet]) -> UNet:
    """A student with the mean of the weights: better than each where one was trained on from the other. Wortsman et al., ICML 2022.

    Raises:
        InputError: students of different configurations.
    """
    configs = [net.config for net in students]
    if any(config != configs[0] for config in configs):
        raise InputError(f"students to average have configurations {configs}; expected the same ones")
    mean = copy.deepcopy(students[0])
    for target, *sources in zip(mean.parameters(), *(net.parameters() for net in students), strict=True):
        target.data = torch.stack([p.detach().double() for p in sources]).mean(0).to(target)
    return mean
