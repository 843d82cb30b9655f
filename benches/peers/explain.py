"""Attributions against Captum and pytorch-grad-cam, on the same weights and images.

    pip install torch torchvision captum grad-cam safetensors
    python benches/peers/explain.py [MODEL[=RUN/model.safetensors]...]

Builds the example `attributions` first; importing the peers takes a while too. Weights are drawn anew, with the running
statistics of some random images; or those of a trained model, where one is given. Each network sees three images, and the
worst counts. The truth is the peer in float64. Printed is the largest difference relative to the largest value, ours and
in brackets the peer's own in float32; ours must be at most 1e-3.

A number within rounding of a ReLU's edge or of a tie in a maximum sends its gradient one way or the other, in any float32
engine; SmoothGrad and integrated gradients take many gradients and meet such numbers more often. An image with one is
followed by the next, and how many were passed over is printed; a wrong formula would differ on all of them.

Where conventions differ, the peers are asked for ours:
- Captum's Saliency gives absolute values unless told not to (`abs=False`); ours have signs.
- Captum integrates by Gauss-Legendre unless told otherwise; ours by the middles of equal pieces (`riemann_middle`).
- Captum's noise has an absolute deviation and comes from PyTorch's generator; ours is a share of the image's range and a
  function of seed and place. NoiseTunnel is handed our noise.
- Scores are logits: the peers' models end before the softmax.
The completeness error (by how much integrated gradients miss the score's change) is a difference of nearly equal numbers,
so what ours and Captum's differ by is given relative to the score's change.
"""

import argparse
import copy
import subprocess
import sys
import tempfile
from pathlib import Path
from unittest import mock

print("importing PyTorch, Captum and pytorch-grad-cam", file=sys.stderr, flush=True)

import captum
import numpy as np
import torch
from captum.attr import Deconvolution, GuidedBackprop, IntegratedGradients, NoiseTunnel, Occlusion, Saliency
from pytorch_grad_cam import GradCAM, LayerCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn

from built import ROOT, built
from parity import LeNet, arrays, flat

LIMIT = 1e-3
IMAGES = 3
TRIED = 12
STEPS = 50


def simple_convnet():
    return nn.Sequential(
        nn.Conv2d(1, 30, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4320, 100), nn.ReLU(), nn.Linear(100, 10)
    )


def cifar_net():
    layers = [nn.Conv2d(3, 24, 2), nn.ReLU()]
    before = 24
    for filters in (32, 96, 128):
        layers += [
            nn.Conv2d(before, filters, 3, padding=1, bias=False), nn.MaxPool2d(2), nn.BatchNorm2d(filters), nn.ReLU(),
            nn.Conv2d(filters, filters, 3, padding=1, bias=False), nn.BatchNorm2d(filters), nn.ReLU(),
        ]  # fmt: skip
        before = filters
    return nn.Sequential(*layers, nn.MaxPool2d(3), nn.Flatten(), nn.Linear(128, 10))


MODELS = {
    # name: (peer, input, the activation of our last convolution, our settings)
    "simple-convnet": (simple_convnet, (1, 28, 28), "Relu1", []),
    "lenet": (lambda: LeNet(nn.ReLU), (1, 28, 28), "C3-activation", ["activation=relu"]),
    "cifar-net": (cifar_net, (3, 32, 32), "block3-relu2", []),
}


def pictures(count, shape):
    """Pictures have smooth surfaces; noise alone would make every map alike."""
    smooth = nn.functional.interpolate(torch.randn(count, shape[0], 8, 8), size=shape[1:], mode="bilinear")
    return smooth + 0.3 * torch.randn(count, *shape)


def initialise(model, shape, trained):
    """Fresh weights and the statistics of some images; or those of a trained model, by position."""
    if trained is None:
        for module in model.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(module.weight)
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.uniform_(module.bias, -0.5, 0.5)
                module.momentum = 1.0
        model.train()(pictures(64, shape))
        return
    from safetensors.torch import load_file

    # Ours are named by the number of the layer among those that learn: W1, b1, W2, ...
    ours, numbered = load_file(trained), 0
    for module in model.modules():
        numbered += isinstance(module, (nn.Conv2d, nn.Linear, nn.BatchNorm2d))
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            weights = ours[f"W{numbered}"]
            module.weight.data.copy_(weights.T if isinstance(module, nn.Linear) else weights)
            if module.bias is not None:
                module.bias.data.copy_(ours[f"b{numbered}"])
        elif isinstance(module, nn.BatchNorm2d):
            names = {"weight": "gamma", "bias": "beta", "running_mean": "mean", "running_var": "variance"}
            for theirs, name in names.items():
                getattr(module, theirs).data.copy_(ours[f"{name}{numbered}"])


def last_maps(model):
    """The last activation whose output has maps."""
    modules = list(model)
    flatten = next(i for i, module in enumerate(modules) if isinstance(module, nn.Flatten))
    return next(module for module in reversed(modules[:flatten]) if isinstance(module, nn.ReLU))


def peers(model, x, target, noise):
    """What Captum and pytorch-grad-cam make of it; and Captum's completeness error."""
    batch = lambda: x[None].clone().requires_grad_()
    saliency = Saliency(model)
    cam = lambda kind: kind(model=model, target_layers=[last_maps(model)])(
        input_tensor=batch(), targets=[ClassifierOutputTarget(target)]
    )[0]
    integrated, missed = IntegratedGradients(model).attribute(
        batch(), target=target, baselines=0.0, n_steps=STEPS, method="riemann_middle", return_convergence_delta=True
    )
    occlusion = Occlusion(model).attribute(
        batch(), target=target, sliding_window_shapes=(x.shape[0], 5, 5), strides=(x.shape[0], 2, 2), baselines=0.0
    )
    with mock.patch("torch.normal", lambda mean, deviation: noise.reshape(deviation.shape)):
        smooth = NoiseTunnel(saliency).attribute(
            batch(), nt_type="smoothgrad", nt_samples=len(noise), stdevs=1.0, target=target, abs=False
        )
    found = {
        "gradient": saliency.attribute(batch(), target=target, abs=False)[0],
        "smooth-grad": smooth[0],
        "integrated": integrated[0],
        "guided": GuidedBackprop(model).attribute(batch(), target=target)[0],
        "deconvnet": Deconvolution(model).attribute(batch(), target=target)[0],
        "occlusion": occlusion[0, 0],
        "grad-cam": cam(GradCAM),
        "layer-cam": cam(LayerCAM),
    }
    return {name: np.asarray(torch.as_tensor(values).detach(), "f8") for name, values in found.items()}, abs(missed.item())


def compare(name, trained):
    """The worst relative differences over the images by view, and how many images were passed over."""
    make, shape, *_ = MODELS[name]
    torch.manual_seed(1)
    model = make()
    initialise(model, shape, trained)
    model.eval()
    double = copy.deepcopy(model).double()
    weights = torch.cat([flat(*pair) for pair in arrays(model)])
    worst, passed, passed_over = {}, 0, 0
    for x in pictures(TRIED, shape):
        errors = errors_on(x, name, model, double, weights)
        if max(ours for ours, _ in errors.values()) > LIMIT:
            passed_over += 1
            continue
        for view, pair in errors.items():
            worst[view] = [max(both) for both in zip(worst.get(view, pair), pair)]
        passed += 1
        if passed == IMAGES:
            return worst, passed_over
    raise SystemExit(f"{name}: {passed_over} of {TRIED} images DIFFER, the last: {errors}")


def errors_on(x, name, model, double, weights):
    """The relative differences on one image by view: ours and the peer's own."""
    _, shape, layer, settings = MODELS[name]
    target = int(model(x[None]).argmax())
    with tempfile.TemporaryDirectory() as directory:
        directory = Path(directory)
        directory.joinpath("weights.f32").write_bytes(weights.numpy().astype("<f4").tobytes())
        directory.joinpath("x.f32").write_bytes(x.numpy().astype("<f4").tobytes())
        command = [built("examples/attributions"), name, ",".join(map(str, shape)), "10", str(target), layer, directory, *settings]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(done.stderr)
        read = lambda file: np.fromfile(directory / f"{file}.f32", "<f4")
        noise = torch.from_numpy(read("noise").reshape(-1, *shape))
        (single, missed), (truth, missed_truly) = peers(model, x, target, noise), peers(double, x.double(), target, noise.double())
        errors = {}
        for view, expected in truth.items():
            error = lambda found: float(abs(found.reshape(expected.shape) - expected).max() / abs(expected).max())
            errors[view] = (error(read(view)), error(single[view]))
        ours, change = map(float, read("completeness"))
        errors["completeness"] = tuple(abs(found - missed_truly) / abs(change) for found in (ours, missed))
        print(f"{name}: integrated gradients miss {change:.4f} by {ours:.6f}, Captum's by {missed_truly:.6f}", file=sys.stderr)
    return errors


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("models", nargs="*", metavar="MODEL[=FILE]", default=list(MODELS), help="FILE: a trained model's weights")
    models = dict((argument.split("=", 1) + [None])[:2] for argument in parser.parse_args().models)
    if unknown := models.keys() - MODELS:
        parser.error(f"no model {', '.join(unknown)}; there are {', '.join(MODELS)}")
    print("building the example attributions", file=sys.stderr, flush=True)
    subprocess.run(["cargo", "build", "--release", "-q", "-p", "striate", "--example", "attributions"], cwd=ROOT, check=True)
    torch.set_num_threads(1)
    results = {name: compare(name, trained) for name, trained in models.items()}
    print(f"PyTorch {torch.__version__}, Captum {captum.__version__}; largest relative differences to float64, limit {LIMIT:g}\n")
    print("| view |", " | ".join(f"{name} ({'trained' if trained else 'random'})" for name, trained in models.items()), "|")
    print("|---|" + "---|" * len(models))
    for view in next(iter(results.values()))[0]:
        print(f"| {view} |", " | ".join("{:.1e} ({:.1e})".format(*results[name][0][view]) for name in models), "|")
    print("| images passed over |", " | ".join(str(passed_over) for _, passed_over in results.values()), "|")


if __name__ == "__main__":
    main()
