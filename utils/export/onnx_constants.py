"""Constants of ONNX graphs with static shapes, in the form that OpenCV's dnn before 4.7 reads.

Its importer does not compute the grid of cells from constants, and multiplies a map by it only if it has
the shape of the map.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

ELEMENTWISE = ("Add", "Sub", "Mul", "Div")
_QUANTIZATION = ("QuantizeLinear", "DequantizeLinear")  # folded, weights would be FP32 again

Shape = tuple[int, ...]


def with_full_constants(model: Any) -> Any:
    """Return a graph of static shapes in which element-wise operators need no broadcasting of constants.

    Nodes that depend on constants only, or on the shapes of tensors, become constants. Numbers and weights
    of layers stay as they are.

    Args:
        model: onnx.ModelProto, whose inputs have static shapes.

    Returns:
        onnx.ModelProto with the same outputs, and their static shapes.
    """
    from onnx import numpy_helper
    from onnx.shape_inference import infer_shapes

    model = infer_shapes(model, data_prop=True)
    while _fold(model):  # what has become constant may make more shapes known
        del model.graph.value_info[:]
        model = infer_shapes(model, data_prop=True)
    graph, shapes = model.graph, static_shapes(model.graph)
    constants = {each.name: each for each in graph.initializer}
    for node in graph.node:
        shape = shapes.get(node.output[0])
        if node.op_type not in ELEMENTWISE or shape is None:
            continue
        for position, name in enumerate(node.input):
            if name not in constants:
                continue
            values = numpy_helper.to_array(constants[name])
            if not is_read_by_all(values.shape, shape):
                same_in_batch = values.ndim < len(shape) or values.shape[0] == 1
                full = np.ascontiguousarray(np.broadcast_to(values, shape)[0 if same_in_batch else ...])
                node.input[position] = f"{node.output[0]}_constant"
                graph.initializer.append(numpy_helper.from_array(full, node.input[position]))
    _drop_unused(graph)
    return model


def is_read_by_all(constant: Shape, result: Shape) -> bool:
    """Return whether OpenCV 4.5 reads a constant of an element-wise operator with a result of this shape.

    It does if the constant is a number, the weights of a layer, or has the full shape without the batch.
    Weights are (C,) of the last axis, or (C, 1, 1) of a map; these may not even be expanded, because OpenCV
    merges them with the convolution before it. With the batch, it fails for batches larger than 1.
    """
    of_channels = len(result) == 4 and constant[-3:] == (result[1], 1, 1)
    return math.prod(constant) == 1 or len(constant) == 1 or of_channels or constant == result[1:]


def static_shapes(graph: Any) -> dict[str, Shape]:
    """Return the shapes of the tensors of a graph, after shape inference, except those with unknown sides."""
    shapes = {}
    for value in (*graph.input, *graph.value_info, *graph.output):
        kind = value.type.tensor_type
        if kind.HasField("shape") and all(side.HasField("dim_value") for side in kind.shape.dim):
            shapes[value.name] = tuple(side.dim_value for side in kind.shape.dim)
    return shapes


def _fold(model: Any) -> bool:
    """Replace the nodes that are constant by initializers; returns whether there were any."""
    from onnx import numpy_helper
    from onnx.reference import ReferenceEvaluator

    graph = model.graph
    shapes = static_shapes(graph)
    constants = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
    remaining, folded = [], []
    for node in graph.node:
        if node.op_type == "Shape" and node.input[0] in shapes:
            feeds = {node.input[0]: np.broadcast_to(np.float32(0), shapes[node.input[0]])}
        elif _can_fold(node) and all(not name or name in constants for name in node.input):
            feeds = {name: constants[name] for name in node.input if name}
        else:
            remaining.append(node)
            continue
        values = ReferenceEvaluator(_model_of(node, feeds, model.opset_import)).run(None, feeds)
        for name, value in zip(node.output, values, strict=True):
            constants[name] = np.asarray(value)
            folded.append(numpy_helper.from_array(constants[name], name))
    if not folded:
        return False
    del graph.node[:]
    graph.node.extend(remaining)
    graph.initializer.extend(folded)
    _drop_unused(graph)
    return True


def _can_fold(node: Any) -> bool:
    """Return whether a node computes the same from the same inputs, of which it may have none."""
    own = node.op_type not in _QUANTIZATION and not node.op_type.startswith("Random")
    return own and node.domain in ("", "ai.onnx") and not any(each.HasField("g") for each in node.attribute)


def _model_of(node: Any, feeds: dict[str, np.ndarray], opsets: Any) -> Any:
    """Return a model of one node whose inputs are `feeds`."""
    from onnx import helper

    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
        for name, value in feeds.items()
    ]
    outputs = [helper.make_empty_tensor_value_info(name) for name in node.output]
    return helper.make_model(helper.make_graph([node], "node", inputs, outputs), opset_imports=opsets)


def _drop_unused(graph: Any) -> None:
    """Remove the constants that no node reads."""
    used = {name for node in graph.node for name in node.input} | {each.name for each in graph.output}
    kept = [each for each in graph.initializer if each.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
