"""Reference values for the layers and the book's network, by PyTorch in float64.

    pip install torch
    python layers.py > layers.json

tests/layers_against_pytorch.rs compares ours with them. All inputs are rounded to float32 first, so that both sides
start from the same numbers; the seed is fixed, so that the file comes out the same.
"""

import json
import sys

import torch
from torch.nn import functional as F

torch.manual_seed(7)
torch.set_default_dtype(torch.float64)


def numbers(*shape, scale=1.0):
    return (torch.randn(*shape) * scale).float().double()


def pack(tensor):
    tensor = tensor.detach()
    return {"shape": list(tensor.shape), "values": [float(f"{v:.9g}") for v in tensor.flatten().tolist()]}


def case(name, options, inputs, output, gradients_of):
    """One case: inputs by name, the output, a gradient of the output, and by autograd those of the inputs named."""
    upstream = numbers(*output.shape)
    output.backward(upstream)
    packed = {key: pack(value) for key, value in inputs.items()}
    packed.update({"y": pack(output), "dy": pack(upstream)})
    packed.update({"d" + key: pack(inputs[key].grad) for key in gradients_of})
    return {"name": name, **options, "arrays": packed}


def leaf(tensor):
    return tensor.clone().requires_grad_()


def convolution(n, c, h, w, filters, kernel, stride, padding):
    x, weight, bias = leaf(numbers(n, c, h, w)), leaf(numbers(filters, c, *kernel)), leaf(numbers(filters))
    y = F.conv2d(x, weight, bias, stride=stride, padding=padding)
    options = {"kernel": kernel, "stride": stride, "padding": padding}
    return case(f"{(n, c, h, w)} * {filters}", options, {"x": x, "w": weight, "b": bias}, y, ["x", "w", "b"])


def pooling(kind, n, c, h, w, kernel, stride, padding, ceil, count_padding):
    x = leaf(numbers(n, c, h, w))
    if kind == "max":
        y = F.max_pool2d(x, kernel, stride, padding, ceil_mode=ceil)
    else:
        y = F.avg_pool2d(x, kernel, stride, padding, ceil_mode=ceil, count_include_pad=count_padding)
    options = {"kind": kind, "kernel": kernel, "stride": stride, "padding": padding, "ceil": ceil}
    return case(f"{kind} {(n, c, h, w)}", {**options, "count_padding": count_padding}, {"x": x}, y, ["x"])


def im2col(n, c, h, w, kernel, stride, padding):
    """unfold's columns, in the book's order: rows (n, oh, ow), columns (c, fh, fw); and fold as col2im."""
    x = numbers(n, c, h, w)
    columns = F.unfold(x, kernel, stride=stride, padding=padding)
    upstream = numbers(*columns.shape)
    back = F.fold(upstream, (h, w), kernel, stride=stride, padding=padding)
    rows = lambda t: t.transpose(1, 2).reshape(-1, t.shape[1])
    arrays = {"x": pack(x), "col": pack(rows(columns)), "dcol": pack(rows(upstream)), "dx": pack(back)}
    return {"name": f"{(n, c, h, w)}", "kernel": kernel, "stride": stride, "padding": padding, "arrays": arrays}


def elementwise(name, function, x):
    x = leaf(x)
    return case(name, {}, {"x": x}, function(x), ["x"])


def affine():
    x, w, b = leaf(numbers(3, 2, 4, 5)), leaf(numbers(40, 7)), leaf(numbers(7))
    return case("affine of 4-D input", {}, {"x": x, "w": w, "b": b}, x.reshape(3, -1) @ w + b, ["x", "w", "b"])


def softmax_loss(name, logits, labels):
    x = leaf(logits)
    loss = F.cross_entropy(x, labels)
    loss.backward()
    arrays = {"x": pack(x), "y": pack(F.softmax(x, 1)), "dx": pack(x.grad)}
    return {"name": name, "labels": labels.tolist(), "loss": loss.item(), "arrays": arrays}


def network():
    """The book's SimpleConvNet in small: 1x10x10, 3 filters of 3x3, hidden 6, 4 classes; three steps of SGD and Adam."""
    start = {
        "W1": numbers(3, 1, 3, 3, scale=0.5),
        "b1": numbers(3, scale=0.1),
        "W2": numbers(48, 6, scale=0.3),
        "b2": numbers(6, scale=0.1),
        "W3": numbers(6, 4, scale=0.5),
        "b3": numbers(4, scale=0.1),
    }
    x, labels = numbers(3, 1, 10, 10), torch.tensor([2, 0, 3])

    def logits(p):
        maps = F.max_pool2d(F.relu(F.conv2d(x, p["W1"], p["b1"])), 2)
        hidden = F.relu(maps.reshape(3, -1) @ p["W2"] + p["b2"])
        return hidden @ p["W3"] + p["b3"]

    def steps(make):
        p = {key: leaf(value) for key, value in start.items()}
        optimizer = make(list(p.values()))
        losses = []
        for _ in range(4):
            optimizer.zero_grad()
            loss = F.cross_entropy(logits(p), labels)
            losses.append(loss.item())
            loss.backward()
            optimizer.step()
        return losses

    p = {key: leaf(value) for key, value in start.items()}
    y = logits(p)
    F.cross_entropy(y, labels).backward()
    return {
        "x": pack(x),
        "labels": labels.tolist(),
        "parameters": {key: pack(value) for key, value in start.items()},
        "gradients": {key: pack(value.grad) for key, value in p.items()},
        "logits": pack(y),
        "sgd": steps(lambda values: torch.optim.SGD(values, lr=0.1)),
        "adam": steps(lambda values: torch.optim.Adam(values, lr=0.01)),
    }


extreme = torch.tensor([[1e4, -1e4, 0.0], [-1e4, 3.0, 1e4], [0.5, 0.25, -0.125]])
json.dump(
    {
        "torch": torch.__version__,
        "convolution": [
            convolution(1, 1, 1, 1, 1, (1, 1), (1, 1), (0, 0)),
            convolution(2, 3, 7, 7, 4, (5, 5), (1, 1), (0, 0)),
            convolution(1, 2, 6, 9, 5, (3, 2), (1, 2), (1, 0)),
            convolution(3, 1, 9, 8, 7, (2, 2), (3, 4), (0, 1)),
            convolution(1, 5, 4, 4, 3, (3, 3), (1, 1), (4, 3)),
            convolution(2, 2, 11, 13, 17, (4, 3), (2, 3), (2, 1)),
        ],
        "pooling": [
            pooling("max", 2, 3, 8, 8, (2, 2), (2, 2), (0, 0), False, False),
            pooling("max", 1, 2, 9, 7, (3, 3), (2, 2), (1, 1), False, False),
            pooling("max", 1, 1, 8, 6, (3, 2), (2, 3), (1, 0), True, False),
            pooling("average", 2, 2, 8, 6, (2, 3), (2, 3), (0, 0), False, False),
            pooling("average", 1, 2, 7, 7, (3, 3), (2, 2), (1, 1), False, True),
            pooling("average", 1, 2, 7, 7, (3, 3), (2, 2), (1, 1), False, False),
            pooling("average", 1, 1, 8, 8, (3, 3), (2, 2), (1, 1), True, True),
        ],
        "im2col": [
            im2col(1, 3, 7, 7, (5, 5), (1, 1), (0, 0)),
            im2col(2, 2, 5, 6, (3, 2), (2, 1), (1, 2)),
        ],
        "relu": [elementwise("relu", F.relu, numbers(2, 3, 4, 5))],
        "sigmoid": [
            elementwise("sigmoid", torch.sigmoid, numbers(2, 3, 4, 5)),
            elementwise("extreme", torch.sigmoid, torch.tensor([[1e4, -1e4, 0.0, 20.0, -20.0]])),
        ],
        "affine": [affine()],
        "softmax": [
            softmax_loss("ordinary", numbers(5, 4, scale=3.0), torch.tensor([0, 3, 1, 1, 2])),
            softmax_loss("logits of 1e4", extreme, torch.tensor([1, 2, 0])),
        ],
        "network": network(),
    },
    sys.stdout,
)
