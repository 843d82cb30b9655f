"""Reference values for networks that are graphs, by PyTorch in float64.

    pip install torch
    python graphs.py > graphs.json
    python graphs.py random SEED COUNT > cases.jsonl

tests/graphs_against_pytorch.rs compares ours with them. A network is written down as Striate's own description (what a
model file holds as JSON) and run here, layer by layer, with torch's functions. All inputs are rounded to float32 first;
the seed is fixed, so that the file comes out the same.

The second form draws networks: most are one layer of random shape between a 1x1 convolution, whose outputs' gradient is the
layer's input gradient, and an affine layer; every eighth is a small network of several blocks that is trained for some steps by
one of torch's optimizers. scripts/conformance.sh runs it.
"""

import json
import math
import random
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


class Undefined(Exception):
    """What the draw asks for has no value."""


class Net:
    """Runs a description."""

    def __init__(self, description):
        self.description, self.parameters, self.statistics = description, {}, {}
        # How near any number came to where a derivative jumps.
        self.edge = math.inf
        # What a layer's outputs go through.
        self.passes_on = lambda x: x

    def near(self, distance):
        self.edge = min(self.edge, distance.detach().abs().min().item())

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
            values[name] = self.passes_on(getattr(self, kind.replace("-", "_"))(name, inputs, training, **options))
            if last == "input" and training:
                self.first = values[name]
                self.first.retain_grad()
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
            self.near_ties(inputs[0].detach(), w)
            y = F.max_pool2d(inputs[0], w["kernel"], w["stride"], w["padding"], w["dilation"], w["rounding"] == "ceil")
            if y.isinf().any():
                # An error with us; torch's gradient would write beyond its memory.
                raise Undefined("a window that sees no pixel")
            return y
        return F.avg_pool2d(inputs[0], w["kernel"], w["stride"], w["padding"], w["rounding"] == "ceil", count_padding)

    def near_ties(self, x, w):
        """The distance between the two largest of a window; two zeros are what ReLU left, and pass nothing on."""
        (kh, kw), (ph, pw) = w["kernel"], w["padding"]
        if kh * kw == 1:
            return
        # As many rows and columns more as rounding up can ask for.
        x = F.pad(x, (pw, pw + w["stride"][1], ph, ph + w["stride"][0]), value=-1e30)
        windows = F.unfold(x.flatten(0, 1).unsqueeze(1), w["kernel"], w["dilation"], 0, w["stride"])
        first, second = windows.topk(2, 1).values.unbind(1)
        gap = torch.where((first == 0) & (second == 0) | (second <= -1e30), torch.ones_like(first), first - second)
        self.near(gap)

    def affine(self, name, inputs, training, outputs, init):
        x, n = inputs[0].flatten(1), self.number(name)
        return x @ self.get(f"W{n}", x.shape[1], outputs, scale=(2 / x.shape[1]) ** 0.5) + self.get(f"b{n}", outputs)

    def batch_norm(self, name, inputs, training, epsilon=1e-5, momentum=0.1):
        x, n = inputs[0], self.number(name)
        c = x.shape[1]
        if training and x.numel() == c:
            raise Undefined("batch statistics of a single number a channel")
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
        self.near(inputs[0])
        return F.relu(inputs[0])

    def sigmoid(self, name, inputs, training):
        return torch.sigmoid(inputs[0])

    def tanh(self, name, inputs, training):
        return torch.tanh(inputs[0])

    def leaky_relu(self, name, inputs, training, slope):
        self.near(inputs[0])
        return F.leaky_relu(inputs[0], slope)

    def gelu(self, name, inputs, training):
        return F.gelu(inputs[0])

    def silu(self, name, inputs, training):
        return F.silu(inputs[0])

    def hard_swish(self, name, inputs, training):
        self.near(inputs[0].abs() - 3)
        return F.hardswish(inputs[0])

    def clip(self, name, inputs, training, low, high):
        self.near(inputs[0] - low)
        self.near(inputs[0] - high)
        return inputs[0].clamp(low, high)

    def add(self, name, inputs, training):
        return inputs[0] + inputs[1]

    def concat(self, name, inputs, training):
        return torch.cat(inputs, 1)

    def flatten(self, name, inputs, training):
        return inputs[0].flatten(1)

    def softmax(self, name, inputs, training):
        return F.softmax(inputs[0], 1)


def case(name, shape, batch, layers, whole=None):
    net = Net({"name": name, "input": list(shape), "layers": layers})
    x = numbers(batch, *shape)
    predicted = net.run(x, False)
    labels = torch.randint(predicted.shape[1], (batch,))
    # Images with channels of their own mean and spread, as real ones have.
    logits = net.run(x, True)
    loss = F.cross_entropy(logits.flatten(1), labels)
    loss.backward()
    result = {
        "description": net.description,
        "x": pack(x),
        "labels": labels.tolist(),
        "parameters": {k: pack(v) for k, v in {**net.parameters, **net.statistics}.items()},
        "predicted": pack(predicted.flatten(1)),
        "loss": loss.item(),
        "gradients": {k: pack(v.grad) for k, v in net.parameters.items()},
        "statistics": {k: pack(v) for k, v in net.batch_statistics.items()},
    }
    if whole is False:
        # What the layer after the first gives back to it.
        result["input_gradient"] = pack(net.first.grad)
    return result if whole is None else (result, net, x)


ACTIVATIONS = [
    ("relu", {}),
    ("sigmoid", {}),
    ("tanh", {}),
    ("leaky-relu", {"slope": 0.1}),
    ("gelu", {}),
    ("silu", {}),
    ("hard-swish", {}),
    ("clip", {"low": -0.5, "high": 1.0}),
]



def recorded():
    """The cases of graphs.json."""
    return [
        # Every activation, alone after a convolution, then after an affine layer.
        *[
            case(f"{kind} alone", (2, 5, 4), 3, [conv("c", 3, window(3, padding=1)), layer("a", kind, **options), affine("f", 6), layer("g", kind, **options), affine("z", 3)])
            for kind, options in ACTIVATIONS
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


OPTIMIZERS = [
    ({"name": "sgd"}, 0.05, lambda w, lr: torch.optim.SGD(w, lr=lr)),
    ({"name": "momentum", "momentum": 0.9}, 0.02, lambda w, lr: torch.optim.SGD(w, lr=lr, momentum=0.9)),
    ({"name": "nesterov", "momentum": 0.9, "weight_decay": 0.01}, 0.02, lambda w, lr: torch.optim.SGD(w, lr=lr, momentum=0.9, nesterov=True, weight_decay=0.01)),
    ({"name": "adagrad"}, 0.01, lambda w, lr: torch.optim.Adagrad(w, lr=lr)),
    ({"name": "rmsprop", "decay": 0.99}, 0.001, lambda w, lr: torch.optim.RMSprop(w, lr=lr, alpha=0.99, eps=1e-8)),
    ({"name": "adam"}, 0.005, lambda w, lr: torch.optim.Adam(w, lr=lr)),
    ({"name": "adamw", "weight_decay": 0.1}, 0.005, lambda w, lr: torch.optim.AdamW(w, lr=lr, weight_decay=0.1)),
]
STEPS = 5


class Draw(random.Random):
    """Shapes."""

    def sides(self, least, most):
        return [self.randint(least, most), self.randint(least, most)]

    def activation(self, name):
        kind, options = self.choice(ACTIVATIONS)
        return layer(name, kind, **options)

    def window(self, size, asymmetric, dilations=3, largest=7):
        """One that fits `size`: kernels of any shape, strides to 4, padding to 5, dilation to 3."""
        while True:
            kernel, dilation = self.sides(1, self.choice([1, 3, largest])), self.sides(1, self.choice([1, dilations]))
            padding = [self.randint(0, self.choice([0, 1, 5])) for _ in range(4 if asymmetric else 2)]
            if not asymmetric:
                # What torch allows a pooling.
                padding = [min(p, k // 2) for p, k in zip(padding, kernel)]
            both = [padding[0] + padding[2], padding[1] + padding[3]] if asymmetric else [2 * p for p in padding]
            if all(n + b >= (k - 1) * d + 1 for n, b, k, d in zip(size, both, kernel, dilation)):
                return window(kernel, self.sides(1, self.choice([1, 2, 4])), padding, dilation)

    def layer(self, channels, size):
        """One layer, and the number of channels that go into it."""
        kind = self.choice(["convolution"] * 8 + ["pooling"] * 4 + ["activation", "batch-norm", "affine", "local-response-norm", "adaptive-pooling", "softmax", "add", "concat"])
        if kind == "convolution":
            # Few groups, many, or one a channel.
            groups = self.choice([1, 1, 1, self.randint(2, 4), channels])
            groups, channels = (channels, channels) if groups == channels else (groups, groups * max(1, channels // groups))
            filters = groups * self.randint(1, max(1, 67 // groups))
            return channels, [conv("layer", filters, self.window(size, True), groups=groups, bias=self.random() < 0.7)]
        if kind == "pooling":
            pooling = self.choice(["max", "average"])
            w = self.window(size, False, dilations=3 if pooling == "max" else 1)
            w["rounding"] = self.choice(["floor", "ceil"])
            options = {} if pooling == "max" else {"count_padding": self.random() < 0.5}
            return channels, [layer("layer", "pooling", pooling=pooling, window=w, **options)]
        if kind == "activation":
            return channels, [self.activation("layer")]
        if kind == "affine":
            return channels, [affine("layer", self.randint(1, 67))]
        if kind == "local-response-norm":
            options = {"size": self.randint(1, 7), "k": self.uniform(0.5, 2), "alpha": self.uniform(0.01, 0.5), "beta": self.uniform(0.3, 1)}
            return channels, [layer("layer", kind, **options)]
        if kind == "adaptive-pooling":
            return channels, [layer("layer", kind, output=[self.randint(1, n) for n in size])]
        if kind in ("add", "concat"):
            return channels, [self.activation("branch"), layer("layer", kind, ["pre", "branch"])]
        return channels, [layer("layer", kind)]

    def one_layer(self, name):
        size = self.choice([[1, 1], self.sides(1, 9), self.sides(5, 24)])
        channels, batch = self.choice([1, 3, self.randint(1, 16), self.randint(1, 67)]), self.randint(1, 9)
        channels, layers = self.layer(channels, size)
        # Fused with what follows, or alone.
        after = [[], [layer("relu", "relu")], [self.activation("after")], [layer("norm", "batch-norm"), layer("relu", "relu")]]
        layers = [conv("pre", channels, window(1)), *layers, *self.choice(after), affine("classes", self.randint(2, 5))]
        return name, (self.randint(1, 3), *size), batch, layers

    def network(self, name):
        """Convolutions with and without what is fused with them, and a hidden layer."""
        side, layers = self.randint(6, 16), []
        for block in range(self.randint(1, 3)):
            normed = self.random() < 0.5
            w = window(self.choice([1, 3, 3, 5]), 1, 0)
            w["padding"] = [k // 2 for k in w["kernel"]]
            layers.append(conv(f"conv{block}", self.choice([4, 7, 16, 24]), w, bias=not normed))
            layers += [layer(f"norm{block}", "batch-norm")] * normed + [self.activation(f"act{block}")]
            if side >= 4 and self.random() < 0.7:
                layers.append(layer(f"pool{block}", "pooling", pooling=self.choice(["max", "average"]), window=window(2, 2)))
                side //= 2
        layers += [affine("hidden", self.randint(3, 20)), self.activation("last-act"), affine("classes", self.randint(2, 5))]
        side = self.randint(8, 16)
        return name, (self.randint(1, 3), side, side), self.randint(2, 9), layers


class Rounded(torch.autograd.Function):
    """Numbers to 22 bits, forward and backward: two fewer than float32 has, as sums in it lose some."""

    @staticmethod
    def forward(ctx, x):
        high = x * (2**31 + 1)
        return high - (high - x)

    @staticmethod
    def backward(ctx, gradient):
        return Rounded.forward(ctx, gradient)


def copy(net, passes_on):
    """A net with the same numbers, to be changed."""
    other = Net(net.description)
    other.numbers, other.passes_on = net.numbers, passes_on
    other.parameters = {k: v.detach().clone().requires_grad_() for k, v in net.parameters.items()}
    other.statistics = {k: v.clone() for k, v in net.statistics.items()}
    return other


def float32_error(net, x, labels, loss):
    """The largest difference of loss and gradients where what passes between the layers is rounded: some sums cancel so that
    no float32 engine has their digits."""
    single = copy(net, Rounded.apply)
    found = F.cross_entropy(single.run(x, True).flatten(1), labels)
    found.backward()
    truth = {k: v.grad for k, v in net.parameters.items()}
    errors = [((single.parameters[k].grad - t).abs().max() / t.abs().max().clamp(min=1)).item() for k, t in truth.items()]
    return max(*errors, 10 * abs(found.item() - loss) / max(1, loss))


def train(net, x, labels, rate, optimizer):
    """Losses of some steps, and what the trained network predicts."""
    step, losses = optimizer(list(net.parameters.values()), rate), []
    for _ in range(STEPS):
        step.zero_grad()
        loss = F.cross_entropy(net.run(x, True).flatten(1), labels)
        loss.backward()
        step.step()
        net.statistics = {k: v.detach() for k, v in net.batch_statistics.items()}
        losses.append(loss.item())
    return losses, net.run(x, False).flatten(1).detach()


def trained(net, x, labels, described, rate, optimizer):
    """What `train` finds, and how far from a derivative's jump, or nothing where float32's rounding decides: an adaptive
    optimizer takes it for a direction where a gradient is nearly zero."""
    exact, single = copy(net, net.passes_on), copy(net, Rounded.apply)
    losses, predicted = train(exact, x, labels, rate, optimizer)
    rounded = train(single, x, labels, rate, optimizer)
    error = max(abs(a - b) / max(1, a) for a, b in zip(losses, rounded[0]))
    if error > 2e-5 or (predicted - rounded[1]).abs().max() > 2e-3 * predicted.abs().max().clamp(min=1):
        return 0.0, None
    return exact.edge, {"optimizer": described, "rate": rate, "losses": losses, "predicted": pack(predicted)}


def drawn(seed, count):
    """Random cases. What comes nearer than float32 can tell to a place where a derivative jumps is drawn again, and what
    float32 can't compute."""
    torch.manual_seed(seed)
    draw, made = Draw(seed), 0
    while made < count:
        whole = made % 8 == 7
        name, shape, batch, layers = (draw.network if whole else draw.one_layer)(f"{seed}/{made}")
        try:
            found, net, x = case(name, shape, batch, layers, whole)
        except Undefined:
            continue
        labels, edge = torch.tensor(found["labels"]), net.edge
        if edge < 2e-5 or float32_error(net, x, labels, found["loss"]) > 2e-5:
            continue
        if whole:
            edge, found["training"] = trained(net, x, labels, *draw.choice(OPTIMIZERS))
        line = json.dumps(found)
        if edge > 2e-5 and len(line) < 2**20:
            print(line)
            made += 1


if __name__ == "__main__":
    if sys.argv[1:2] == ["random"]:
        drawn(int(sys.argv[2]), int(sys.argv[3]))
    else:
        json.dump({"torch": torch.__version__, "cases": recorded()}, sys.stdout)
