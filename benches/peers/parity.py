"""Parity with PyTorch: the same model, weights and batch; logits, loss and every gradient compared.

    pip install torch torchvision
    python benches/peers/parity.py [MODEL...]

Builds `cargo build --release -p striate --examples` first. Weights are PyTorch's, drawn anew; they are copied over by
position, a convolution's as it is, a linear layer's transposed. Both sides run in training mode (batch normalisation by
the batch's statistics) with dropout off.

The truth is PyTorch in float64. Printed is the largest difference relative to the largest value of each array, the worst
array's, for ours and for PyTorch's own float32; ours must be at most 1e-4. A number within rounding of a ReLU's edge or of
a tie in a maximum sends its gradient one way or the other, in any float32 engine, and then the gradients of a whole batch
differ by percents. So normalisations are given shifts that keep most numbers away from the edge, and a batch on which one of
the engines has such a number, PyTorch or ours, is followed by the next; a wrong formula would differ on all of them. How many
were passed over is printed.
"""

import copy
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import torchvision
from torch import nn

from built import ROOT, built

PARITY = built("examples/parity")
LIMIT = 1e-4


class LeNet(nn.Sequential):
    """As in our models/lenet.rs: 28x28 padded to 32x32."""

    def __init__(self, activation):
        super().__init__(
            nn.Conv2d(1, 6, 5, padding=2), activation(), nn.AvgPool2d(2), nn.Conv2d(6, 16, 5), activation(), nn.AvgPool2d(2),
            nn.Flatten(), nn.Linear(400, 120), activation(), nn.Linear(120, 84), activation(), nn.Linear(84, 10),
        )  # fmt: skip


class AlexNet(nn.Sequential):
    """The paper's: two groups, local response normalisation (PyTorch's alpha is divided by the size, the paper's is not)."""

    def __init__(self):
        norm = lambda: nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)
        super().__init__(
            nn.Conv2d(3, 96, 11, 4), nn.ReLU(), norm(), nn.MaxPool2d(3, 2),
            nn.Conv2d(96, 256, 5, padding=2, groups=2), nn.ReLU(), norm(), nn.MaxPool2d(3, 2),
            nn.Conv2d(256, 384, 3, padding=1), nn.ReLU(),
            nn.Conv2d(384, 384, 3, padding=1, groups=2), nn.ReLU(),
            nn.Conv2d(384, 256, 3, padding=1, groups=2), nn.ReLU(), nn.MaxPool2d(3, 2),
            nn.Flatten(), nn.Linear(9216, 4096), nn.ReLU(), nn.Linear(4096, 4096), nn.ReLU(), nn.Linear(4096, 1000),
        )  # fmt: skip


MODELS = {
    # name: (peer, input, classes, our settings)
    "lenet": (lambda: LeNet(nn.Sigmoid), (1, 28, 28), 10, []),
    "lenet (relu)": (lambda: LeNet(nn.ReLU), (1, 28, 28), 10, ["activation=relu"]),
    "alexnet": (AlexNet, (3, 227, 227), 1000, ["dropout=0"]),
    "alexnet-torchvision": (torchvision.models.alexnet, (3, 224, 224), 1000, []),
    "vgg11": (torchvision.models.vgg11, (3, 224, 224), 1000, ["dropout=0"]),
    "resnet18": (torchvision.models.resnet18, (3, 64, 64), 1000, []),
    "resnet50": (torchvision.models.resnet50, (3, 64, 64), 1000, []),
    "mobilenet-v2": (torchvision.models.mobilenet_v2, (3, 64, 64), 1000, ["dropout=0"]),
}


def arrays(model):
    """Every array of the model that is ours too, in our order: (kind, weights, gradient)."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            yield "linear", module.weight
            yield "", module.bias
        elif isinstance(module, nn.Conv2d):
            yield "", module.weight
            if module.bias is not None:
                yield "", module.bias
        elif isinstance(module, nn.BatchNorm2d):
            yield "", module.weight
            yield "", module.bias
            yield "statistic", module.running_mean
            yield "statistic", module.running_var


def flat(kind, tensor):
    return (tensor.T if kind == "linear" else tensor).detach().contiguous().flatten()


def batch_of(make, shape, classes, seed):
    """Model, images, labels, and what PyTorch makes of them in either precision."""
    torch.manual_seed(seed)
    model = make().float()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.2, 0.3)
            nn.init.uniform_(module.bias, 0.8, 1.2)
    batch = {28: 8, 64: 4}.get(shape[1], 1)
    # Pictures have smooth surfaces; noise alone would make every map alike.
    smooth = nn.functional.interpolate(torch.randn(batch, shape[0], 8, 8), size=shape[1:], mode="bilinear")
    x, labels = smooth + 0.3 * torch.randn(batch, *shape), torch.randint(classes, (batch,))
    weights = torch.cat([flat(*pair) for pair in arrays(model)])
    sides = []
    for side in (model, copy.deepcopy(model).double()):
        side.train()
        before = [flat(kind, tensor).clone() for kind, tensor in arrays(side)]
        logits = side(x.to(next(side.parameters()).dtype))
        loss = nn.functional.cross_entropy(logits, labels)
        loss.backward()
        # In the place of a running statistic's gradient we have the step: value -= step.
        gradients = [
            old - flat("", tensor) if kind == "statistic" else flat(kind, tensor.grad)
            for old, (kind, tensor) in zip(before, arrays(side), strict=True)
        ]
        sides.append((logits.detach().double(), loss.item(), [gradient.double() for gradient in gradients]))
    return weights, x, labels, sides


def worst(found, truth):
    """The largest relative difference of any array, and which.

    Some gradients are zero in exact arithmetic: a shift that only a convolution and a normalisation follow is taken out again
    (MobileNetV2's linear bottlenecks). In float64 they are below 1e-10 of the largest; what float32 leaves there is measured
    against a thousandth of the largest.
    """
    largest = max(array.abs().max().item() for array in truth)
    differences = []
    for a, b in zip(found, truth, strict=True):
        scale = b.abs().max().item()
        differences.append((a - b).abs().max().item() / (scale if scale > 1e-10 * largest else 1e-3 * largest))
    return max(range(len(differences)), key=differences.__getitem__), max(differences)


def ours(name, weights, x, labels, shape, classes, settings):
    """Loss, parameters' names, logits and gradients of our engine."""
    with tempfile.TemporaryDirectory() as directory:
        directory = Path(directory)
        directory.joinpath("weights.f32").write_bytes(weights.numpy().astype("<f4").tobytes())
        directory.joinpath("x.f32").write_bytes(x.numpy().astype("<f4").tobytes())
        directory.joinpath("labels.u32").write_bytes(labels.numpy().astype("<u4").tobytes())
        size = ",".join(map(str, shape))
        command = [PARITY, name.split(" ")[0], size, str(classes), directory, *settings]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(done.stderr)
        found = json.loads(done.stdout)
        read = lambda file: torch.frombuffer(bytearray(directory.joinpath(file).read_bytes()), dtype=torch.float32).double()
        return found["loss"], found["parameters"], read("logits.f32"), read("gradients.f32")


def compare(name):
    make, shape, classes, settings = MODELS[name]
    passed_over = {"PyTorch": 0, "ours": 0}
    for seed in range(1, 31):
        weights, x, labels, (single, double) = batch_of(make, shape, classes, seed)
        own = worst(single[2], double[2])[1]
        if own > LIMIT:
            passed_over["PyTorch"] += 1
            continue
        logits, loss, truth = double
        our_loss, parameters, our_logits, our_gradients = ours(name, weights, x, labels, shape, classes, settings)
        array, gradient = worst(our_gradients.split([array.numel() for array in truth]), truth)
        scores = worst([our_logits.reshape(logits.shape)], [logits])[1]
        error = abs(our_loss - loss) / loss
        if max(scores, error) > LIMIT:
            print(f"{name:20} seed {seed:2}   logits {scores:.1e}   loss {error:.1e}   DIFFERS")
            return False
        if gradient > LIMIT:
            passed_over["ours"] += 1
            continue
        print(
            f"{name:20} logits {scores:.1e}   loss {error:.1e}   gradients {gradient:.1e} ({parameters[array][0]} of "
            f"{len(truth)} arrays)   PyTorch's own {own:.1e}   batches passed over: {passed_over}"
        )
        return True
    print(f"{name:20} gradients differ on every batch of 30: {passed_over}")
    return False


def main():
    subprocess.run(["cargo", "build", "--release", "-q", "-p", "striate", "--examples"], cwd=ROOT, check=True)
    print(f"PyTorch {torch.__version__}, torchvision {torchvision.__version__}; largest relative differences to float64, limit {LIMIT:g}")
    results = [compare(name) for name in sys.argv[1:] or MODELS]
    sys.exit(0 if all(results) else 1)


if __name__ == "__main__":
    main()
