"""Attributions against Captum and pytorch-grad-cam, on the same weights and images.

    pip install torch captum grad-cam
    python benches/peers/explain.py

Builds the example `attributions` first. Weights are PyTorch's, drawn anew, in eval mode with running statistics that are
not the identity. Printed is the largest difference relative to the largest value; the limit is 1e-3.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from captum.attr import Deconvolution, GuidedBackprop, IntegratedGradients, Occlusion, Saliency
from pytorch_grad_cam import GradCAM, LayerCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn

from parity import ROOT, arrays, flat

LIMIT = 1e-3


def simple_convnet():
    return nn.Sequential(
        nn.Conv2d(1, 30, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4320, 100), nn.ReLU(), nn.Linear(100, 10)
    )


def cifar_net():
    layers = [nn.Conv2d(3, 24, 2, bias=False), nn.BatchNorm2d(24), nn.ReLU()]
    before = 24
    for filters in (32, 96, 128):
        layers += [
            nn.Conv2d(before, filters, 3, padding=1, bias=False), nn.MaxPool2d(2), nn.BatchNorm2d(filters), nn.ReLU(),
            nn.Conv2d(filters, filters, 3, padding=1, bias=False), nn.BatchNorm2d(filters), nn.ReLU(),
        ]  # fmt: skip
        before = filters
    return nn.Sequential(*layers, nn.MaxPool2d(3), nn.Flatten(), nn.Linear(128, 10))


MODELS = {
    # name: (peer, input, our layer, position of the peer's)
    "simple-convnet": (simple_convnet, (1, 28, 28), "Relu1", 1),
    "cifar-net": (cifar_net, (3, 32, 32), "block3-relu2", 23),
}


def peers(model, x, target, layer):
    """What Captum and pytorch-grad-cam make of it."""
    batch = lambda: x[None].clone().requires_grad_()
    cam = lambda kind: kind(model=model, target_layers=[layer])(input_tensor=batch(), targets=[ClassifierOutputTarget(target)])[0]
    occlusion = Occlusion(model).attribute(
        batch(), target=target, sliding_window_shapes=(x.shape[0], 5, 5), strides=(x.shape[0], 2, 2), baselines=0.0
    )
    return {
        "gradient": Saliency(model).attribute(batch(), target=target, abs=False)[0],
        "guided": GuidedBackprop(model).attribute(batch(), target=target)[0],
        "deconvnet": Deconvolution(model).attribute(batch(), target=target)[0],
        "integrated": IntegratedGradients(model).attribute(
            batch(), target=target, baselines=0.0, n_steps=50, method="riemann_middle"
        )[0],
        "occlusion": occlusion[0, 0],
        "grad-cam": cam(GradCAM),
        "layer-cam": cam(LayerCAM),
    }


def compare(name):
    make, shape, our_layer, position = MODELS[name]
    torch.manual_seed(1)
    model = make()
    for module in model:
        if isinstance(module, nn.BatchNorm2d):
            for parameter in (module.weight, module.bias, module.running_mean, module.running_var):
                nn.init.uniform_(parameter, 0.3, 1.0)
    model.eval()
    smooth = nn.functional.interpolate(torch.randn(1, shape[0], 8, 8), size=shape[1:], mode="bilinear")[0]
    x = smooth + 0.3 * torch.randn(*shape)
    target = int(model(x[None]).argmax())
    passed = True
    with tempfile.TemporaryDirectory() as directory:
        directory = Path(directory)
        weights = torch.cat([flat(*pair) for pair in arrays(model)])
        directory.joinpath("weights.f32").write_bytes(weights.numpy().astype("<f4").tobytes())
        directory.joinpath("x.f32").write_bytes(x.numpy().astype("<f4").tobytes())
        example = ROOT / "target" / "release" / "examples" / "attributions"
        subprocess.run([example, name, ",".join(map(str, shape)), "10", str(target), our_layer, directory], check=True)
        for attribution, expected in peers(model, x, target, model[position]).items():
            expected = np.asarray(torch.as_tensor(expected).detach())
            found = np.fromfile(directory / f"{attribution}.f32", "<f4").reshape(expected.shape)
            error = abs(found - expected).max() / abs(expected).max()
            passed &= bool(error <= LIMIT)
            print(f"{name:16} {attribution:12} {error:.1e} {'' if error <= LIMIT else 'DIFFERS'}")
    return passed


if __name__ == "__main__":
    subprocess.run(["cargo", "build", "--release", "-q", "-p", "striate", "--example", "attributions"], cwd=ROOT, check=True)
    results = [compare(name) for name in MODELS]
    sys.exit(0 if all(results) else 1)
