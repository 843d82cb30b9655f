"""Whether torchvision's weights mean the same here: random weights are saved by PyTorch, made a model by `striate convert`, and
its logits compared with PyTorch's on the model file's own test vectors.

    python benches/peers/torchvision_weights.py [STRIATE] [MODEL...]

Needs `pip install torch torchvision safetensors` and a built striate (default: target/release/striate).
"""

import pathlib
import subprocess
import sys
import tempfile

import torch
import torchvision
from safetensors import safe_open
from safetensors.torch import save_file

from built import built

TOLERANCE = 1e-4
# torchvision's name: ours, with options, and the number of classes where it is not 1000.
MODELS = {
    "resnet18": (["resnet18"], 1000),
    "resnet34": (["resnet34"], 7),
    "resnet50": (["resnet50"], 1000),
    "vgg11": (["vgg11"], 1000),
    "vgg11_bn": (["vgg11", "--set", "batch_norm=true"], 1000),
    "vgg16": (["vgg16"], 1000),
    "alexnet": (["alexnet-torchvision"], 1000),
    "mobilenet_v2": (["mobilenet-v2"], 12),
}


def random_model(name, classes):
    torch.manual_seed(1)
    model = getattr(torchvision.models, name)(weights=None, num_classes=classes)
    for module in model.modules():
        # Fresh statistics are zeros and ones, which would hide a name that is mixed up.
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -0.2, 0.2)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.uniform_(module.bias, -0.2, 0.2)
    return model.eval()


def compare(striate, name, directory):
    ours, classes = MODELS[name]
    model = random_model(name, classes)
    weights, converted = directory / f"{name}-weights.safetensors", directory / f"{name}.safetensors"
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, weights)
    subprocess.run([striate, "convert", weights, converted, "--model", *ours, "--quiet"], check=True)
    with safe_open(converted, "pt") as file:
        x, expected = file.get_tensor("striate.test.inputs"), file.get_tensor("striate.test.logits")
    with torch.inference_mode():
        found = model(x)
    weights.unlink()
    converted.unlink()
    return (found - expected).abs().max().item() / max(1.0, found.abs().max().item())


def main():
    striate = sys.argv[1] if len(sys.argv) > 1 else built("striate")
    failed = 0
    print("| torchvision | largest difference |\n|---|---|")
    with tempfile.TemporaryDirectory() as directory:
        for name in sys.argv[2:] or MODELS:
            difference = compare(striate, name, pathlib.Path(directory))
            failed += not difference <= TOLERANCE
            print(f"| {name} | {difference:.1e} |", flush=True)
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
