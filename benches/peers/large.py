"""Networks for 224 x 224 images with SGD and momentum: AlexNet in torchvision's shape and as published (groups and local
response normalisation), VGG-11, ResNet-18. See README.md."""

import torch
import torchvision
from torch import nn

from peers import Case, compare


def momentum(parameters, **how):
    return torch.optim.SGD(parameters, lr=0.001, momentum=0.9, **how)


def published_alexnet():
    """Krizhevsky, Sutskever and Hinton, 2012, on its two groups."""
    norm = lambda: nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=2.0)
    return nn.Sequential(
        nn.Conv2d(3, 96, 11, stride=4), nn.ReLU(), norm(), nn.MaxPool2d(3, 2),
        nn.Conv2d(96, 256, 5, padding=2, groups=2), nn.ReLU(), norm(), nn.MaxPool2d(3, 2),
        nn.Conv2d(256, 384, 3, padding=1), nn.ReLU(),
        nn.Conv2d(384, 384, 3, padding=1, groups=2), nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1, groups=2), nn.ReLU(), nn.MaxPool2d(3, 2), nn.Flatten(),
        nn.Linear(9216, 4096), nn.ReLU(), nn.Dropout(), nn.Linear(4096, 4096), nn.ReLU(), nn.Dropout(),
        nn.Linear(4096, 1000),
    )  # fmt: skip


def large(name, build, batch, side=224):
    return Case(name, build, batch, momentum, (3, side, side), 1000, large=True)


if __name__ == "__main__":
    compare(
        [
            large("alexnet-torchvision", torchvision.models.alexnet, 32),
            large("alexnet", published_alexnet, 32, 227),
            large("vgg11", torchvision.models.vgg11, 16),
            large("resnet18", torchvision.models.resnet18, 16),
        ]
    )
