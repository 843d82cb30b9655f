"""LeNet for 28 x 28 images with SGD and momentum, in its two usual forms: sigmoid with average pooling, ReLU with max
pooling. See README.md."""

import torch
from torch import nn

from peers import Case, compare


def lenet(activation, pool):
    return lambda: nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), activation(), pool(2),
        nn.Conv2d(6, 16, 5), activation(), pool(2), nn.Flatten(),
        nn.Linear(400, 120), activation(), nn.Linear(120, 84), activation(), nn.Linear(84, 10),
    )  # fmt: skip


def momentum(parameters, **how):
    return torch.optim.SGD(parameters, lr=0.001, momentum=0.9, **how)


compare(
    [
        Case("LeNet, sigmoid and average", lenet(nn.Sigmoid, nn.AvgPool2d), 64, momentum),
        Case("LeNet, ReLU and max", lenet(nn.ReLU, nn.MaxPool2d), 64, momentum),
    ]
)
