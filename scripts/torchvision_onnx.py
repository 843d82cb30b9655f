#!/usr/bin/env python3
"""Does an ONNX file of torchvision's mean here what it means to onnxruntime?

Exports torchvision's networks with random weights from a fixed seed (their statistics settled by a few batches of noise, so
that the numbers neither die nor explode), runs them in onnxruntime on random inputs, and writes beside each file what went
in and what came out. The example `compare_onnx` then imports each file and compares.

  pip install torch torchvision onnx onnxscript onnxruntime
  python3 scripts/torchvision_onnx.py DIR [NAME...]
  cargo run --release --example compare_onnx -- DIR

DIR gets NAME.onnx, and NAME.npz with `input` (N, C, H, W) and `output` (N, classes). With --exporter script the files are made
by PyTorch's older exporter.
"""
import argparse
import pathlib

import numpy as np
import onnxruntime
import torch
import torchvision

NAMES = [
    "resnet18", "mobilenet_v2", "squeezenet1_1", "vgg11", "alexnet", "densenet121", "googlenet", "efficientnet_b0",
    "shufflenet_v2_x1_0", "mobilenet_v3_small", "mnasnet0_5", "regnet_y_400mf",
]


def network(name: str) -> torch.nn.Module:
    torch.manual_seed(7)
    extra = {"init_weights": True, "aux_logits": False} if name == "googlenet" else {}
    model = getattr(torchvision.models, name)(weights=None, **extra)
    # Running statistics as after some training: else every normalisation is the identity.
    model.train()
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.momentum = None
        for _ in range(2):
            model(torch.randn(4, 3, 224, 224))
        for layer in model.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.momentum = 0.1
                layer.weight.uniform_(0.5, 1.5)
                layer.bias.uniform_(-0.5, 0.5)
    return model.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=pathlib.Path)
    parser.add_argument("names", nargs="*", default=NAMES, metavar="NAME")
    parser.add_argument("--exporter", choices=["dynamo", "script"], default="dynamo")
    options = parser.parse_args()
    options.directory.mkdir(parents=True, exist_ok=True)
    for name in options.names:
        model = network(name)
        path = options.directory / f"{name}.onnx"
        x = torch.randn(2, 3, 224, 224)
        if options.exporter == "dynamo":
            shapes = {"x": {0: torch.export.Dim("batch", min=1, max=64)}}
            torch.onnx.export(model, (x,), str(path), dynamo=True, dynamic_shapes=list(shapes.values()), verbose=False)
        else:
            axes = {"input": {0: "batch"}, "output": {0: "batch"}}
            torch.onnx.export(
                model, (x,), str(path), dynamo=False, input_names=["input"], output_names=["output"], dynamic_axes=axes
            )
        session = onnxruntime.InferenceSession(str(path))
        y = session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]
        np.savez(options.directory / f"{name}.npz", input=x.numpy(), output=y)
        print(f"{name}: {path}, outputs from {y.min():.4f} to {y.max():.4f}", flush=True)


if __name__ == "__main__":
    main()
