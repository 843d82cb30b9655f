"""Reference values for networks that are graphs, by PyTorch in float64.

    pip install torch
    python graphs.py > graphs.json

tests/graphs_against_pytorch.rs compares ours with them. A network is written down as Striate's own description (what a
model file holds as JSON) and run here, layer by layer, with torch's functions. All inputs are rounded to float32 first;
the seed is fixed, so that the file comes out the same.
"""

import json
import sys

import torch
from torch.nn import functional as F

torch.manual_seed(11)
torch.set_default_dtype(torch.float64)


def numbers(*shape, scale=1.0):
    return (torch.randn(*shape) * scale).float().double()


def pack(tensor):
    tensor = tensor.detach()
    return {"shape": list(tensor.shape), "values": [float(f"{v:.9g}") for v in tensor.flatten().tolist()]}


def window(kernel, stride=1, padding=0, dilation=1, rounding="floor"):
    pair = lambda v: list(v) if isinstance(v, (list, tuple)) else [v, v]
    return {"kernel": pair(kernel), "stride": pair(stride), "padding": pair(padding), "dilation": pair(dilation), "rounding": rounding}


def layer(name, kind, inputs=(), **options):
    return {"name": name, "layer": {"kind": kind, **options}, "inputs": list(inputs)}


HE = {"name": "he"}


def conv(name, filters, w, inputs=(), groups=1, bias=True):
    return layer(name, "convolution", inputs, filters=filters, window=w, init=HE, groups=groups, bias=bias)


def affine(name, outputs, inputs=()):
    return layer(name, "affine", inputs, outputs=outputs, init=HE)


class Net:
    """Runs a description."""

    def __init__(self, description):
        self.description, self.parameters, self.statistics, self.learning = description, {}, {}, 0

    def number(self, name):
        if name not in self.numbers:
            self.numbers[name] = len(self.numbers) + 1
        return self.numbers[name]

    def get(self, key, *shape, scale=None, ones=False, statistic=False):
        store = self.statistics if statistic else self.parameters
        if key not in store:
            value = numbers(*shape, scale=scale or 0.2)
            # Scales and variances around 1, never negative.
            value = (1.0 + value.abs()).float().double() if ones else value
            store[key] = value if statistic else value.requires_grad_()
        return store[key]

    def run(self, x, training):
        self.numbers = getattr(self, "numbers", {})
        self.batch_statistics = {}
        values, last = {"input": x}, "input"
        for named in self.description["layers"]:
            options = dict(named["layer"])
            kind, name = options.pop("kind"), named["name"]
            inputs = [values[i] for i in named["inputs"]] or [values[last]]
            values[name] = getattr(self, kind.replace("-", "_"))(name, inputs, training, **options)
            last = name
        return values[last]

    def convolution(self, name, inputs, training, filters, window, init, groups, bias):
        x, k, p = inputs[0], window["kernel"], window["padding"]
        n = self.number(name)
        w = self.get(f"W{n}", filters, x.shape[1] // groups, *k, scale=(2 / (x.shape[1] // groups * k[0] * k[1])) ** 0.5)
        b = self.get(f"b{n}", filters) if bias else None
        if len(p) == 4:
            x, p = F.pad(x, (p[1], p[3], p[0], p[2])), [0, 0]
        return F.conv2d(x, w, b, window["stride"], p, window["dilation"], groups)

    def pooling(self, name, inputs, training, pooling, window, count_padding=False):
        w = window
        if pooling == "max":
            return F.max_pool2d(inputs[0], w["kernel"], w["stride"], w["padding"], w["dilation"], w["rounding"] == "ceil")
        return F.avg_pool2d(inputs[0], w["kernel"], w["stride"], w["padding"], w["rounding"] == "ceil", count_padding)

    def affine(self, name, inputs, training, outputs, init):
        x, n = inputs[0].flatten(1), self.number(name)
        return x @ self.get(f"W{n}", x.shape[1], outputs, scale=(2 / x.shape[1]) ** 0.5) + self.get(f"b{n}", outputs)

    def batch_norm(self, name, inputs, training, epsilon=1e-5, momentum=0.1):
        x, n = inputs[0], self.number(name)
        c = x.shape[1]
        gamma, beta = self.get(f"gamma{n}", c, ones=True), self.get(f"beta{n}", c)
        mean = self.get(f"mean{n}", c, statistic=True)
        variance = self.get(f"variance{n}", c, ones=True, statistic=True)
        running = mean.clone(), variance.clone()
        y = F.batch_norm(x, *running, gamma, beta, training, momentum, epsilon)
        self.batch_statistics[f"mean{n}"], self.batch_statistics[f"variance{n}"] = running
        return y

    def local_response_norm(self, name, inputs, training, size, k, alpha, beta):
        return F.local_response_norm(inputs[0], size, alpha * size, beta, k)

    def adaptive_pooling(self, name, inputs, training, output):
        return F.adaptive_avg_pool2d(inputs[0], output)

    def relu(self, name, inputs, training):
        return F.relu(inputs[0])

    def sigmoid(self, name, inputs, training):
        return torch.sigmoid(inputs[0])

    def tanh(self, name, inputs, training):
        return torch.tanh(inputs[0])

    def leaky_relu(self, name, inputs, training, slope):
        return F.leaky_relu(inputs[0], slope)

    def gelu(self, name, inputs, training):
        return F.gelu(inputs[0])

    def silu(self, name, inputs, training):
        return F.silu(inputs[0])

    def hard_swish(self, name, inputs, training):
        return F.hardswish(inputs[0])

    def clip(self, name, inputs, training, low, high):
        return inputs[0].clamp(low, high)

    def add(self, name, inputs, training):
        return inputs[0] + inputs[1]

    def concat(self, name, inputs, training):
        return torch.cat(inputs, 1)

    def flatten(self, name, inputs, training):
        return inputs[0].flatten(1)

    def softmax(self, name, inputs, training):
        return F.softmax(inputs[0], 1)


def case(name, shape, batch, layers):
    net = Net({"name": name, "input": list(shape), "layers": layers})
    x = numbers(batch, *shape)
    predicted = net.run(x, False)
    labels = torch.randint(predicted.shape[1], (batch,))
    # Images with channels of their own mean and spread, as real ones have.
    logits = net.run(x, True)
    loss = F.cross_entropy(logits.flatten(1), labels)
    loss.backward()
    return {
        "description": net.description,
        "x": pack(x),
        "labels": labels.tolist(),
        "parameters": {k: pack(v) for k, v in {**net.parameters, **net.statistics}.items()},
        "predicted": pack(predicted.flatten(1)),
        "loss": loss.item(),
        "gradients": {k: pack(v.grad) for k, v in net.parameters.items()},
        "statistics": {k: pack(v) for k, v in net.batch_statistics.items()},
    }


activations = [
    ("relu", {}),
    ("sigmoid", {}),
    ("tanh", {}),
    ("leaky-relu", {"slope": 0.1}),
    ("gelu", {}),
    ("silu", {}),
    ("hard-swish", {}),
    ("clip", {"low": -0.5, "high": 1.0}),
]

cases = [
    # Every activation, alone after a convolution, then after an affine layer.
    *[
        case(f"{kind} alone", (2, 5, 4), 3, [conv("c", 3, window(3, padding=1)), layer("a", kind, **options), affine("f", 6), layer("g", kind, **options), affine("z", 3)])
        for kind, options in activations
    ],
    case("softmax inside", (2, 4, 3), 2, [conv("c", 4, window(2)), layer("s", "softmax"), affine("z", 3), layer("last", "softmax")]),
    # Convolutions: groups, depthwise, dilation, uneven padding, no bias.
    case("groups", (6, 7, 6), 3, [conv("c", 9, window(3, 2, 1), groups=3), layer("r", "relu"), conv("d", 6, window(2), groups=3, bias=False), affine("z", 4)]),
    case("depthwise", (5, 8, 7), 2, [conv("c", 5, window(3, 1, 1), groups=5, bias=False), layer("r", "relu"), conv("d", 10, window(3, 2, 1), groups=5), layer("k", "clip", low=0.0, high=6.0), affine("z", 4)]),
    case("dilation", (2, 9, 11), 2, [conv("c", 3, window((2, 3), 1, (2, 1), (2, 3))), layer("r", "relu"), conv("d", 2, window(3, 2, (0, 1, 2, 3))), affine("z", 3)]),
    case("pooling", (3, 9, 10), 2, [conv("c", 4, window(1)), layer("m", "pooling", pooling="max", window=window(2, 1, 1, 2)), layer("a", "pooling", pooling="average", window=window(3, 2, 1, rounding="ceil")), layer("g", "adaptive-pooling", output=[2, 3]), affine("z", 3)]),
    # Local response normalisation with the paper's constants (made stronger, so that they show), and an even size.
    case("lrn", (3, 6, 5), 2, [conv("c", 7, window(3)), layer("r", "relu"), layer("n", "local-response-norm", size=5, k=2.0, alpha=0.3, beta=0.75), conv("d", 4, window(1)), layer("m", "local-response-norm", size=2, k=1.0, alpha=0.5, beta=0.6), affine("z", 3)]),
    # Batch normalisation with and without what can be fused with it.
    case("norm", (3, 6, 5), 4, [conv("c", 5, window(3, 1, 1), bias=False), layer("n", "batch-norm"), layer("r", "relu"), conv("d", 4, window(3)), layer("m", "batch-norm", epsilon=0.01, momentum=0.3), layer("t", "tanh"), affine("f", 6), layer("o", "batch-norm"), layer("q", "relu"), affine("z", 3)]),
    # A residual block whose shortcut has a convolution, and one without; the sum's order changes.
    case(
        "residual",
        (3, 8, 8),
        3,
        [
            conv("c", 4, window(3, 1, 1), bias=False),
            layer("n", "batch-norm"),
            layer("r", "relu"),
            conv("a1", 4, window(3, 1, 1), bias=False),
            layer("a1n", "batch-norm"),
            layer("a1r", "relu"),
            conv("a2", 4, window(3, 1, 1), bias=False),
            layer("a2n", "batch-norm"),
            layer("aa", "add", ["r", "a2n"]),
            layer("ar", "relu"),
            conv("b1", 6, window(3, 2, 1), bias=False),
            layer("b1n", "batch-norm"),
            layer("b1r", "relu"),
            conv("b2", 6, window(3, 1, 1), bias=False),
            layer("b2n", "batch-norm"),
            conv("bs", 6, window(1, 2), ["ar"], bias=False),
            layer("bsn", "batch-norm"),
            layer("ba", "add", ["b2n", "bsn"]),
            layer("br", "relu"),
            layer("g", "adaptive-pooling", output=[1, 1]),
            affine("z", 5),
        ],
    ),
    # Shortcuts around single layers, a value read three times, a sum with itself, plain convolutions with a sum after.
    case(
        "shortcuts",
        (4, 6, 6),
        2,
        [
            conv("c", 4, window(3, 1, 1)),
            layer("s", "add", ["c", "input"]),
            conv("d", 4, window(3, 1, 1)),
            layer("t", "add", ["d", "s"]),
            layer("tr", "relu"),
            layer("u", "add", ["tr", "tr"]),
            conv("e", 4, window(1), ["s"]),
            layer("v", "add", ["e", "u"]),
            layer("w", "add", ["v", "s"]),
            layer("flat", "flatten"),
            affine("z", 3),
        ],
    ),
    # Dense and inception-like joins; an input taken twice.
    case(
        "concat",
        (3, 7, 7),
        2,
        [
            conv("c", 4, window(3, 1, 1)),
            layer("r", "relu"),
            conv("a", 3, window(1), ["r"]),
            conv("b", 2, window(3, 1, 1), ["r"]),
            layer("p", "pooling", ["r"], pooling="max", window=window(3, 1, 1)),
            layer("j", "concat", ["a", "r", "b", "p", "a"]),
            layer("n", "batch-norm"),
            layer("nr", "silu"),
            conv("d", 3, window(3, 2)),
            layer("k", "concat", ["d"]),
            affine("z", 3),
        ],
    ),
]
json.dump({"torch": torch.__version__, "cases": cases}, sys.stdout)
