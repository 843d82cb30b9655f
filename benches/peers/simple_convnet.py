"""SimpleConvNet (conv 30@5x5 - relu - pool 2x2 - affine 100 - relu - affine 10) with Adam. See README.md."""

import torch
from torch import nn

from peers import Case, compare


def build():
    return nn.Sequential(
        nn.Conv2d(1, 30, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4320, 100), nn.ReLU(), nn.Linear(100, 10)
    )


compare([Case("SimpleConvNet", build, 100, lambda parameters, **how: torch.optim.Adam(parameters, lr=0.001, **how))])
