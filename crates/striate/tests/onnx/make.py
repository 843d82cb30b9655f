"""Small graphs as exporters write them, with what onnxruntime makes of them: NAME.onnx, and NAME.npz with `input`
(N, C, H, W), as a network here takes it, and `output` (N, classes), the logits.

    pip install onnx onnxruntime numpy
    python crates/striate/tests/onnx/make.py

`tests/onnx_graphs.rs` imports each and compares; `fuzz/run onnx` starts from them.
"""

import pathlib

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnx.helper import make_node as node

HERE = pathlib.Path(__file__).parent
random = np.random.default_rng(7)


def numbers(name, *shape):
    return numpy_helper.from_array((random.standard_normal(shape) * 0.5).round(3).astype(np.float32), name)


def constant(name, values, kind=np.float32):
    return numpy_helper.from_array(np.asarray(values, kind), name)


def whole(name, values):
    return constant(name, values, np.int64)


def model(name, nodes, constants, input, output):
    infos = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", *input]),
        helper.make_tensor_value_info(output, TensorProto.FLOAT, ["batch", "classes"]),
    ]
    graph = helper.make_graph(nodes, name, infos[:1], infos[1:], constants)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], producer_name="make.py", ir_version=8)
    onnx.checker.check_model(made, full_check=True)
    return made.SerializeToString()


def write(name, nodes, constants, input, channels_last=False, logits="y"):
    """A file whose output is `y`, and what onnxruntime computes for `logits`."""
    (HERE / f"{name}.onnx").write_bytes(model(name, nodes, constants, input, "y"))
    reached = nodes[: next(i for i, made in enumerate(nodes) if logits in made.output) + 1]
    session = onnxruntime.InferenceSession(model(name, reached, constants, input, logits))
    x = random.standard_normal((3, *input)).astype(np.float32)
    y = session.run(None, {"x": x})[0]
    np.savez(HERE / f"{name}.npz", input=x.transpose(0, 3, 1, 2).copy() if channels_last else x, output=y)
    print(name, y.round(3).tolist())


# PyTorch: convolution, normalisation, pooling, linear layer.
write("pytorch", [
    node("Conv", ["x", "w", "b"], ["a"], "conv", pads=[1, 1, 1, 1]),
    node("BatchNormalization", ["a", "scale", "shift", "mean", "variance"], ["n"], "bn"),
    node("Relu", ["n"], ["r"], "relu"),
    node("MaxPool", ["r"], ["p"], "pool", kernel_shape=[2, 2], strides=[2, 2]),
    node("Flatten", ["p"], ["f"], "flatten"),
    node("Gemm", ["f", "fw", "fb"], ["y"], "fc", transB=1),
], [
    numbers("w", 2, 1, 3, 3), numbers("b", 2), constant("scale", [1, 1.5]), numbers("shift", 2), numbers("mean", 2),
    constant("variance", [1, 2]), numbers("fw", 3, 8), numbers("fb", 3),
], [1, 4, 4])

# tf2onnx of Keras' MobileNet: channels last until the first convolution, SAME padding (more at the end), ReLU6 as Clip,
# a depthwise convolution, a folded normalisation as Mul and Add, and a mean as global pooling.
write("keras-mobilenet", [
    node("Transpose", ["x"], ["t"], "to_nchw", perm=[0, 3, 1, 2]),
    node("Conv", ["t", "w", "b"], ["c"], "conv", auto_pad="SAME_UPPER", strides=[2, 2]),
    node("Clip", ["c", "zero", "six"], ["k"], "relu6"),
    node("Conv", ["k", "dw"], ["d"], "depthwise", group=2, auto_pad="SAME_UPPER", kernel_shape=[3, 3]),
    node("Mul", ["d", "scale"], ["q"], "scale"),
    node("Add", ["q", "shift"], ["z"], "shift"),
    node("ReduceMean", ["z"], ["e"], "pool", axes=[2, 3], keepdims=1),
    node("Squeeze", ["e", "axes"], ["s"], "squeeze"),
    node("MatMul", ["s", "m"], ["o"], "dense"),
    node("Add", ["o", "mb"], ["l"], "dense_bias"),
    node("Softmax", ["l"], ["y"], "softmax", axis=-1),
], [
    numbers("w", 2, 3, 3, 3), numbers("b", 2), constant("zero", 0), constant("six", 6), numbers("dw", 2, 1, 3, 3),
    numbers("scale", 1, 2, 1, 1), numbers("shift", 1, 2, 1, 1), whole("axes", [2, 3]), numbers("m", 2, 3),
    numbers("mb", 3),
], [6, 5, 3], channels_last=True, logits="l")

# tf2onnx of a small Keras network: the maps go back to channels last before they are flattened, so that the dense layer's
# weights are in that order.
write("keras-flatten", [
    node("Transpose", ["x"], ["t"], "to_nchw", perm=[0, 3, 1, 2]),
    node("Conv", ["t", "w", "b"], ["c"], "conv", auto_pad="VALID"),
    node("LeakyRelu", ["c"], ["k"], "relu", alpha=0.1),
    node("AveragePool", ["k"], ["p"], "pool", kernel_shape=[2, 2], strides=[2, 2], auto_pad="SAME_UPPER"),
    node("Transpose", ["p"], ["u"], "to_nhwc", perm=[0, 2, 3, 1]),
    node("Reshape", ["u", "flat"], ["f"], "flatten"),
    node("MatMul", ["f", "m"], ["o"], "dense"),
    node("Add", ["o", "mb"], ["y"], "dense_bias"),
], [
    numbers("w", 4, 3, 2, 2), numbers("b", 4), whole("flat", [-1, 24]), numbers("m", 24, 3), numbers("mb", 3),
], [6, 5, 3], channels_last=True)

# Keras scales pixels, and its Normalization takes away a mean a channel, while the channels are still last.
write("keras-rescaling", [
    node("Mul", ["x", "factor"], ["s"], "rescaling"),
    node("Sub", ["s", "mean"], ["z"], "mean"),
    node("Div", ["z", "deviation"], ["n"], "deviation"),
    node("Transpose", ["n"], ["t"], "to_nchw", perm=[0, 3, 1, 2]),
    node("Conv", ["t", "w", "b"], ["c"], "conv", strides=[2, 2], auto_pad="SAME_UPPER"),
    node("Relu", ["c"], ["positive"], "relu"),
    node("Neg", ["c"], ["minus"], "neg"),
    node("Relu", ["minus"], ["negative"], "relu_2"),
    node("Mul", ["negative", "slope"], ["sloped"], "prelu"),
    node("Add", ["positive", "sloped"], ["a"], "add"),
    node("GlobalAveragePool", ["a"], ["p"], "pool"),
    node("Squeeze", ["p", "axes"], ["y"], "squeeze"),
], [
    constant("factor", 0.5), constant("mean", [0.1, 0.2, -0.3]), constant("deviation", [[[[0.5, 2, 1.5]]]]),
    numbers("w", 4, 3, 3, 3), numbers("b", 4), numbers("slope", 4, 1, 1), whole("axes", [2, 3]),
], [6, 5, 3], channels_last=True)

# GELU as exporters spell it: PyTorch, tf2onnx, and the other order.
write("gelu", [
    node("Constant", [], ["root"], "root", value=constant("root", 2**0.5)),
    node("Div", ["x", "root"], ["a"], "div"),
    node("Erf", ["a"], ["b"], "erf"),
    node("Add", ["b", "one"], ["c"], "add"),
    node("Mul", ["x", "c"], ["d"], "mul"),
    node("Mul", ["d", "half"], ["e"], "gelu"),
    node("Mul", ["inverse", "e"], ["f"], "scale_2"),
    node("Erf", ["f"], ["g"], "erf_2"),
    node("Add", ["one", "g"], ["h"], "add_2"),
    node("Mul", ["h", "half"], ["i"], "half_2"),
    node("Mul", ["e", "i"], ["j"], "gelu_2"),
    node("Conv", ["j", "w"], ["k"], "conv"),
    node("Div", ["k", "root"], ["l"], "div_3"),
    node("Erf", ["l"], ["m"], "erf_3"),
    node("Add", ["m", "one"], ["n"], "add_3"),
    node("Mul", ["k", "half"], ["o"], "half_3"),
    node("Mul", ["o", "n"], ["p"], "gelu_3"),
    node("Flatten", ["p"], ["y"], "flatten"),
], [constant("one", 1), constant("half", 0.5), constant("inverse", 0.5**0.5), numbers("w", 2, 1, 2, 2)], [1, 3, 3])

# Sizes computed in the graph, halves that gate each other, a slice and a concatenation.
write("shapes", [
    node("Shape", ["x"], ["s"], "shape"),
    node("Gather", ["s", "first"], ["n"], "gather"),
    node("Unsqueeze", ["n", "axis"], ["n1"], "unsqueeze"),
    node("Concat", ["n1", "rest"], ["to"], "sizes", axis=0),
    node("Reshape", ["x", "to"], ["b"], "view"),
    node("Split", ["b", "halves"], ["i", "j"], "split", axis=1),
    node("Sigmoid", ["i"], ["g"], "gate"),
    node("Mul", ["g", "j"], ["m"], "gated"),
    node("Slice", ["m", "start", "end", "axis1"], ["l"], "slice"),
    node("Concat", ["l", "m"], ["y"], "concat", axis=1),
], [
    whole("first", 0), whole("axis", [0]), whole("rest", [-1]), whole("halves", [4, 4]), whole("start", [1]),
    whole("end", [3]), whole("axis1", [1]),
], [1, 4, 2])

# Quantized: pairs around a convolution, and QLinearConv.
write("quantized", [
    node("QuantizeLinear", ["x", "xs", "xz"], ["q"], "quantize"),
    node("DequantizeLinear", ["q", "xs", "xz"], ["d"], "dequantize"),
    node("DequantizeLinear", ["w", "ws", "wz"], ["wd"], "weights", axis=0),
    node("Conv", ["d", "wd"], ["c"], "conv"),
    node("QuantizeLinear", ["c", "ys", "yz"], ["e"], "quantize_2"),
    node("QLinearConv", ["e", "ys", "yz", "v", "vs", "vz", "ys", "yz"], ["f"], "qconv"),
    node("DequantizeLinear", ["f", "ys", "yz"], ["g"], "dequantize_2"),
    node("GlobalAveragePool", ["g"], ["p"], "pool"),
    node("Flatten", ["p"], ["y"], "flatten"),
], [
    constant("xs", 0.02), constant("xz", 3, np.uint8), constant("w", random.integers(-99, 99, (2, 1, 3, 3)), np.int8),
    constant("ws", [0.01, 0.02]), constant("wz", [0, 0], np.int8), constant("ys", 0.05), constant("yz", 70, np.uint8),
    constant("v", random.integers(-99, 99, (2, 2, 1, 1)), np.int8), constant("vs", [0.01, 0.02]),
    constant("vz", [0, 0], np.int8),
], [1, 5, 5])

# Upwards and padded.
write("upwards", [
    node("ConvTranspose", ["x", "w"], ["a"], "up", strides=[2, 2], pads=[1, 1, 1, 1], output_padding=[1, 1]),
    node("PRelu", ["a", "slope"], ["b"], "prelu"),
    node("Resize", ["b", "", "scales"], ["c"], "resize", mode="linear"),
    node("Pad", ["c", "pads"], ["d"], "pad", mode="reflect"),
    node("AveragePool", ["d"], ["e"], "pool", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1, count_include_pad=1,
         pads=[1, 1, 1, 1]),
    node("LRN", ["e"], ["f"], "lrn", size=3),
    node("HardSwish", ["f"], ["g"], "hardswish"),
    node("GlobalMaxPool", ["g"], ["h"], "maxima"),
    node("Flatten", ["h"], ["y"], "flatten"),
], [
    numbers("w", 3, 3, 3, 3), numbers("slope", 3, 1, 1), constant("scales", [1, 1, 1.5, 2]),
    whole("pads", [0, 0, 1, 1, 0, 0, 1, 1]),
], [3, 3, 3])
