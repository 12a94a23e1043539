"""Rebuild a PyTorch program with TensorFlow operations.

Existing converters cannot be installed together with this project's packages (docs/design/0015), and a YOLO
has only some twenty operations. Values that do not depend on the images (grids, anchors) are computed by
PyTorch and become constants. TensorFlow's convolutions need channels last, so feature maps keep this layout
from one operation to the next, and are transposed only for operations that refer to dimensions by index.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from utils.base.errors import ConfigError

_CHANNELS_LAST_AXIS = {0: 0, 1: 3, 2: 1, 3: 2}  # axis of (B, C, H, W) -> axis of (B, H, W, C)
_ATEN = torch.ops.aten
_IGNORED = {_ATEN._assert_tensor_metadata}  # checks without a result


@dataclass(frozen=True)
class Value:
    """A TensorFlow tensor; with `channels_last` it is (B, H, W, C) where PyTorch's is (B, C, H, W)."""

    tensor: Any
    channels_last: bool = False


class GraphBuilder:
    """A function that runs a PyTorch program with TensorFlow operations.

    Args:
        tf: the module tensorflow.
        model: images (B, 3, H, W) -> a tuple of tensors.
        images: an example batch; the graph accepts no other size.

    Raises:
        ConfigError: the model has an operation that cannot be converted; the message names it.
    """

    def __init__(self, tf: Any, model: nn.Module, images: Tensor) -> None:
        self.tf = tf
        self.program = torch.export.export(model, (images,)).run_decompositions()
        self.operations = _operations(self)
        signature = self.program.graph_signature
        dependent = set(signature.user_inputs)  # names of the values that depend on the images
        for node in self.program.graph.nodes:
            if dependent.isdisjoint(source.name for source in node.all_input_nodes):
                continue
            dependent.add(node.name)
            packet = getattr(node.target, "overloadpacket", None)
            if packet is not None and packet not in self.operations and packet not in _IGNORED:
                raise ConfigError(f"--include saved_model: cannot convert the operation {node.target}")

    def __call__(self, images: Any) -> list[Any]:
        """Return the program's outputs for images (B, H, W, 3), in PyTorch's layout."""
        program = self.program
        state = {**program.state_dict, **program.constants}
        inputs = program.graph_signature.input_specs
        parameters = {spec.arg.name: state[spec.target] for spec in inputs if spec.target is not None}
        values: dict[Any, Any] = {}
        for node in program.graph.nodes:
            if node.op == "placeholder":
                tensor = parameters.get(node.name)
                values[node] = Value(images, channels_last=True) if tensor is None else tensor.detach()
            elif node.op == "call_function":
                values[node] = self._call(node, values)
            elif node.op == "output":
                return [self.channels_first(values[output]) for output in node.args[0]]
        raise AssertionError("the program has no output")

    def _call(self, node: Any, values: dict[Any, Any]) -> Any:
        arguments = torch.fx.node.map_arg(node.args, values.__getitem__)
        keywords = torch.fx.node.map_arg(node.kwargs, values.__getitem__)
        if node.target is operator.getitem:
            return arguments[0][arguments[1]]
        if getattr(node.target, "overloadpacket", None) in _IGNORED:
            return None
        if not _holds_value(arguments):
            return node.target(*arguments, **keywords)
        return self.operations[node.target.overloadpacket](*arguments, **keywords)

    def channels_first(self, value: Any) -> Any:
        """Return a value in PyTorch's layout."""
        if isinstance(value, Tensor):
            return self.tf.constant(value.detach().numpy())
        if not isinstance(value, Value):
            return value
        return self.tf.transpose(value.tensor, (0, 3, 1, 2)) if value.channels_last else value.tensor

    def channels_last(self, value: Any) -> Any:
        """Return a feature map, or a tensor that broadcasts with one, in channels-last layout."""
        if isinstance(value, Value) and value.channels_last:
            return value.tensor
        if not isinstance(value, Value | Tensor):
            return value
        tensor = self.channels_first(value)
        if len(tensor.shape) == 0:
            return tensor
        shape = [1] * (4 - len(tensor.shape)) + tensor.shape.as_list()
        return self.tf.transpose(self.tf.reshape(tensor, shape), (0, 2, 3, 1))


def _holds_value(arguments: Any) -> bool:
    if isinstance(arguments, list | tuple):
        return any(map(_holds_value, arguments))
    return isinstance(arguments, Value)


def _operations(b: GraphBuilder) -> dict[Any, Callable[..., Any]]:
    tf = b.tf
    return {
        **_elementwise(b),
        **_pairs(b),
        **_shapes(b),
        _ATEN.convolution: lambda *a: _convolution(b, *a),
        _ATEN._native_batch_norm_legit_no_training: lambda *a: _batch_norm(b, *a),
        _ATEN.max_pool2d_with_indices: lambda *a: _max_pool(b, *a),
        _ATEN.native_layer_norm: lambda *a: _layer_norm(b, *a),
        _ATEN.upsample_nearest2d: lambda x, size, factors=None: _nearest(b, x, size, factors),
        _ATEN.mean: lambda x, axes, keep=False: Value(tf.reduce_mean(b.channels_first(x), list(axes), keep)),
        _ATEN._softmax: lambda x, axis, half: Value(tf.nn.softmax(b.channels_first(x), axis)),
        _ATEN.eq: lambda x, y: Value(tf.equal(b.channels_first(x), b.channels_first(y))),
        _ATEN.logical_not: lambda x: Value(tf.logical_not(b.channels_first(x))),
        _ATEN.any: lambda x, axis, keep=False: Value(tf.reduce_any(b.channels_first(x), axis, keep)),
        _ATEN.where: lambda c, x, y: Value(
            tf.where(b.channels_first(c), b.channels_first(x), b.channels_first(y))
        ),
        _ATEN.full_like: lambda x, value, **kinds: Value(tf.zeros_like(b.channels_first(x)) + value),
        _ATEN.mm: lambda x, y: Value(tf.matmul(b.channels_first(x), b.channels_first(y))),
        _ATEN.bmm: lambda x, y: Value(tf.matmul(b.channels_first(x), b.channels_first(y))),
        _ATEN.addmm: lambda bias, x, y: Value(
            tf.matmul(b.channels_first(x), b.channels_first(y)) + b.channels_first(bias)
        ),
    }


def _elementwise(b: GraphBuilder) -> dict[Any, Callable[..., Any]]:
    """Return element-wise operations of one value, which work in any layout."""
    tf = b.tf

    def each(function: Callable[..., Any]) -> Callable[..., Value]:
        return lambda x, *rest, **more: Value(function(x.tensor, *rest, **more), x.channels_last)

    def clamp(x: Any, low: float | None = None, high: float | None = None) -> Any:
        x = x if low is None else tf.maximum(x, float(low))
        return x if high is None else tf.minimum(x, float(high))

    return {
        _ATEN.sigmoid: each(tf.sigmoid),
        _ATEN.silu: each(lambda x: x * tf.sigmoid(x)),
        _ATEN.relu: each(tf.nn.relu),
        _ATEN.leaky_relu: each(lambda x, slope=0.01: tf.nn.leaky_relu(x, slope)),
        _ATEN.gelu: each(lambda x, approximate="none": tf.nn.gelu(x, approximate != "none")),
        _ATEN.hardtanh: each(lambda x, low=-1.0, high=1.0: clamp(x, low, high)),
        _ATEN.hardswish: each(lambda x: x * tf.nn.relu6(x + 3.0) / 6.0),
        _ATEN.hardsigmoid: each(lambda x: tf.nn.relu6(x + 3.0) / 6.0),
        _ATEN.clamp: each(clamp),
        _ATEN.tanh: each(tf.tanh),
        _ATEN.exp: each(tf.exp),
        _ATEN.log1p: each(tf.math.log1p),
        _ATEN.erf: each(tf.math.erf),
        _ATEN.neg: each(tf.negative),
        _ATEN.sqrt: each(tf.sqrt),
        _ATEN.rsqrt: each(tf.math.rsqrt),
        _ATEN.reciprocal: each(tf.math.reciprocal),
        _ATEN.clone: each(lambda x, memory_format=None: x),
        _ATEN.alias: each(tf.identity),
        _ATEN._to_copy: each(lambda x, **kinds: x),
    }


def _pairs(b: GraphBuilder) -> dict[Any, Callable[..., Any]]:
    """Return element-wise operations of two values, of which one may be smaller, or a number."""

    def pair(function: Callable[[Any, Any], Any]) -> Callable[..., Value]:
        def run(x: Any, y: Any, alpha: float = 1) -> Value:
            channels_last = any(isinstance(value, Value) and value.channels_last for value in (x, y))
            convert = b.channels_last if channels_last else b.channels_first
            left, right = convert(x), convert(y)
            return Value(function(left, right if alpha == 1 else right * alpha), channels_last)

        return run

    tf = b.tf
    return {
        _ATEN.add: pair(lambda x, y: x + y),
        _ATEN.sub: pair(lambda x, y: x - y),
        _ATEN.mul: pair(lambda x, y: x * y),
        _ATEN.div: pair(lambda x, y: x / y),
        _ATEN.pow: pair(tf.pow),
        _ATEN.maximum: pair(tf.maximum),
        _ATEN.minimum: pair(tf.minimum),
    }


def _shapes(b: GraphBuilder) -> dict[Any, Callable[..., Any]]:
    """Return operations that rearrange values without changing them."""
    tf = b.tf

    def cat(values: Sequence[Any], axis: int = 0) -> Value:
        if all(isinstance(value, Value) and value.channels_last for value in values):
            return Value(
                tf.concat([value.tensor for value in values], _CHANNELS_LAST_AXIS[axis % 4]),
                channels_last=True,
            )
        return Value(tf.concat([b.channels_first(value) for value in values], axis))

    def slice_axis(
        x: Value, axis: int = 0, start: int | None = None, end: int | None = None, step: int = 1
    ) -> Value:
        rank = len(x.tensor.shape)
        position = _CHANNELS_LAST_AXIS[axis % rank] if x.channels_last else axis % rank
        # PyTorch writes "to the end" as 2**63 - 1, which TensorFlow.js, with its 32 bits, reads as -1.
        end = None if end is None or end >= x.tensor.shape[position] else end
        index = [slice(None)] * rank
        index[position] = slice(start, end, step)
        return Value(x.tensor[tuple(index)], x.channels_last)

    def split(x: Value, sizes: Sequence[int], axis: int = 0) -> list[Value]:
        position = _CHANNELS_LAST_AXIS[axis % 4] if x.channels_last else axis
        return [Value(part, x.channels_last) for part in tf.split(x.tensor, list(sizes), position)]

    def pad(x: Value, sides: Sequence[int], value: float = 0.0) -> Value:
        tensor = b.channels_first(x)
        both = [[0, 0]] * (len(tensor.shape) - len(sides) // 2)
        both = both + [[sides[i], sides[i + 1]] for i in range(len(sides) - 2, -1, -2)]
        return Value(tf.pad(tensor, both, constant_values=value))

    def plain(function: Callable[..., Any]) -> Callable[..., Value]:
        return lambda x, *rest: Value(function(b.channels_first(x), *rest))

    return {
        _ATEN.cat: cat,
        _ATEN.slice: slice_axis,
        _ATEN.split_with_sizes: split,
        _ATEN.constant_pad_nd: pad,
        _ATEN.view: plain(lambda x, shape: tf.reshape(x, list(shape))),
        _ATEN.as_strided: plain(_as_strided),
        _ATEN.permute: plain(lambda x, order: tf.transpose(x, list(order))),
        _ATEN.expand: plain(lambda x, shape: tf.broadcast_to(x, _expanded(x, shape))),
        _ATEN.unsqueeze: plain(tf.expand_dims),
        _ATEN.squeeze: plain(lambda x, axes=None: tf.squeeze(x, axes)),
        _ATEN.select: plain(lambda x, axis, index: tf.gather(x, index, axis=axis)),
        _ATEN.repeat: plain(lambda x, times: tf.tile(x, list(times))),
    }


def _as_strided(x: Any, shape: Sequence[int], *strides: Any) -> Any:
    """Return x: PyTorch restores the memory format of a pooled map so, which changes no value.

    Raises:
        ConfigError: the shape changes.
    """
    if list(x.shape) != list(shape):
        raise ConfigError("--include saved_model: cannot convert the operation aten.as_strided")
    return x


def _expanded(x: Any, shape: Sequence[int]) -> list[int]:
    own = [1] * (len(shape) - len(x.shape)) + x.shape.as_list()
    return [old if new == -1 else new for old, new in zip(own, shape, strict=True)]


def _convolution(
    b: GraphBuilder, x: Any, weight: Tensor, bias: Tensor | None, stride: Any, padding: Any, dilation: Any,
    transposed: bool, output_padding: Any, groups: int,
) -> Value:  # fmt: skip
    if transposed:
        raise ConfigError("--include saved_model: cannot convert transposed convolutions")
    tf = b.tf
    maps = b.channels_last(x)
    if any(padding):
        maps = tf.pad(maps, [[0, 0], *([side, side] for side in padding), [0, 0]])
    channels, stride, dilation = maps.shape[3], list(stride), list(dilation)
    if groups == channels == weight.shape[0] > 1:
        kernel = tf.constant(weight.permute(2, 3, 0, 1).contiguous().numpy())
        result = tf.nn.depthwise_conv2d(maps, kernel, [1, *stride, 1], "VALID", dilations=dilation)
    else:
        kernel = tf.constant(weight.permute(2, 3, 1, 0).contiguous().numpy())
        pairs = zip(tf.split(maps, groups, 3), tf.split(kernel, groups, 3), strict=True)
        outputs = [tf.nn.conv2d(part, k, stride, "VALID", dilations=dilation) for part, k in pairs]
        result = outputs[0] if groups == 1 else tf.concat(outputs, 3)
    return Value(result if bias is None else result + tf.constant(bias.numpy()), channels_last=True)


def _batch_norm(
    b: GraphBuilder,
    x: Any,
    weight: Tensor,
    bias: Tensor,
    mean: Tensor,
    variance: Tensor,
    momentum: float,
    eps: float,
) -> list[Value]:
    gain = weight / (variance + eps).sqrt()
    shift = bias - mean * gain
    return [Value(b.channels_last(x) * gain.numpy() + shift.numpy(), channels_last=True)]


def _layer_norm(b: GraphBuilder, x: Any, shape: Any, weight: Tensor, bias: Tensor, eps: float) -> list[Value]:
    tf, values = b.tf, b.channels_first(x)
    axes = list(range(-len(shape), 0))
    mean, variance = tf.nn.moments(values, axes, keepdims=True)
    return [Value((values - mean) * tf.math.rsqrt(variance + eps) * weight.numpy() + bias.numpy())]


def _max_pool(
    b: GraphBuilder, x: Any, kernel: Any, stride: Any = None, padding: Any = (0, 0), dilation: Any = 1,
    ceil_mode: bool = False,
) -> list[Value]:  # fmt: skip
    sides = [[0, 0], *([side, side] for side in padding), [0, 0]]
    maps = (
        b.tf.pad(b.channels_last(x), sides, constant_values=float("-inf"))
        if any(padding)
        else b.channels_last(x)
    )
    return [
        Value(b.tf.nn.max_pool2d(maps, list(kernel), list(stride or kernel), "VALID"), channels_last=True)
    ]


def _nearest(b: GraphBuilder, x: Any, size: Any, factors: Any) -> Value:
    maps = b.channels_last(x)
    height, width = size or (int(side * by) for side, by in zip(maps.shape[1:3], factors, strict=True))
    return Value(b.tf.raw_ops.ResizeNearestNeighbor(images=maps, size=(height, width)), channels_last=True)
