"""Values for tests/optimizers.rs, from PyTorch in float64.

    pip install torch
    python optimizers.py > optimizers.json

Every start value, gradient and learning rate is exact in float32, so that both sides begin with the same numbers.
"""

import json

import torch

STEPS = 6
START = [1.0, -2.0, 0.5, 0.125, -0.75]
# Ordinary, alternating, shrinking, mostly zero, and large ones.
GRADIENTS = [
    [(step + 1) / 8, (-1) ** step * 0.75, 2.0 ** -(2 * step), 0.5 if step == 1 else 0.0, 64.0 - 24.0 * step]
    for step in range(STEPS)
]

CASES = [
    ({"name": "sgd"}, 2**-6, lambda w, lr: torch.optim.SGD(w, lr=lr)),
    ({"name": "momentum", "momentum": 0.875}, 2**-6, lambda w, lr: torch.optim.SGD(w, lr=lr, momentum=0.875)),
    (
        {"name": "nesterov", "momentum": 0.875},
        2**-6,
        lambda w, lr: torch.optim.SGD(w, lr=lr, momentum=0.875, nesterov=True),
    ),
    ({"name": "sgd", "weight_decay": 0.25}, 2**-6, lambda w, lr: torch.optim.SGD(w, lr=lr, weight_decay=0.25)),
    (
        {"name": "momentum", "momentum": 0.875, "weight_decay": 0.5},
        2**-6,
        lambda w, lr: torch.optim.SGD(w, lr=lr, momentum=0.875, weight_decay=0.5),
    ),
    (
        {"name": "nesterov", "momentum": 0.875, "weight_decay": 0.125},
        2**-6,
        lambda w, lr: torch.optim.SGD(w, lr=lr, momentum=0.875, nesterov=True, weight_decay=0.125),
    ),
    ({"name": "adagrad"}, 2**-4, lambda w, lr: torch.optim.Adagrad(w, lr=lr)),
    ({"name": "rmsprop", "decay": 0.99}, 2**-6, lambda w, lr: torch.optim.RMSprop(w, lr=lr, alpha=0.99, eps=1e-8)),
    ({"name": "rmsprop", "decay": 0.5}, 2**-6, lambda w, lr: torch.optim.RMSprop(w, lr=lr, alpha=0.5, eps=1e-8)),
    ({"name": "adam", "beta1": 0.9, "beta2": 0.999}, 2**-6, lambda w, lr: torch.optim.Adam(w, lr=lr)),
    (
        {"name": "adam", "beta1": 0.5, "beta2": 0.75},
        2**-3,
        lambda w, lr: torch.optim.Adam(w, lr=lr, betas=(0.5, 0.75)),
    ),
    (
        {"name": "adamw", "beta1": 0.9, "beta2": 0.999, "weight_decay": 0.01},
        2**-6,
        lambda w, lr: torch.optim.AdamW(w, lr=lr),
    ),
    (
        {"name": "adamw", "beta1": 0.9, "beta2": 0.999, "weight_decay": 0.5},
        2**-3,
        lambda w, lr: torch.optim.AdamW(w, lr=lr, weight_decay=0.5),
    ),
]


class Muon:
    """Written from the paper's formulas: PyTorch's own computes in bfloat16."""

    def __init__(self, weights, lr, momentum, weight_decay, rows=None, rows_are_outputs=True):
        (self.w,), self.lr, self.momentum, self.decay, self.rows = weights, lr, momentum, weight_decay, rows
        self.rows_are_outputs, self.v = rows_are_outputs, torch.zeros_like(self.w)

    @torch.no_grad()
    def step(self):
        g = self.w.grad
        self.v = self.momentum * self.v + g
        u = g + self.momentum * self.v
        if self.rows:
            x = u.reshape(self.rows, -1)
            outputs, inputs = x.shape if self.rows_are_outputs else x.shape[::-1]
            x = x / (torch.linalg.norm(x) + 1e-7)
            for _ in range(5):
                a = x @ x.T
                x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
            u = x.reshape(-1) * max(1.0, outputs / inputs) ** 0.5
        self.w.copy_((1 - self.lr * self.decay) * self.w - self.lr * u)


MUON = {"name": "muon", "momentum": 0.875, "weight_decay": 0.25}


def run_matrix(rows, columns, rows_are_outputs):
    """Three Muon steps from zero weights with gradients sin(i^2 + 7 step)."""
    weights = torch.nn.Parameter(torch.zeros(rows * columns, dtype=torch.float64))
    optimizer = Muon([weights], 0.5, 0.875, 0.25, rows, rows_are_outputs)
    for step in range(3):
        weights.grad = torch.sin(torch.arange(rows * columns, dtype=torch.float64) ** 2 + 7 * step).float().double()
        optimizer.step()
    return {"rows": rows, "columns": columns, "rows_are_outputs": rows_are_outputs, "after": weights.tolist()}


CASES.append((MUON, 2**-6, lambda w, lr: Muon(w, lr, 0.875, 0.25)))


def run(make, learning_rate):
    weights = torch.nn.Parameter(torch.tensor(START, dtype=torch.float64))
    optimizer = make([weights], learning_rate)
    after = []
    for gradient in GRADIENTS:
        weights.grad = torch.tensor(gradient, dtype=torch.float64)
        optimizer.step()
        after.append(weights.detach().tolist())
    return after


print(
    json.dumps(
        {
            "torch": torch.__version__.split("+")[0],
            "start": START,
            "gradients": GRADIENTS,
            "cases": [
                {"options": options, "learning_rate": rate, "after": run(make, rate)} for options, rate, make in CASES
            ],
            "muon": {
                "options": MUON,
                "matrices": [run_matrix(*case) for case in [(3, 7, True), (7, 3, True), (3, 7, False), (4, 4, True)]],
            },
        },
        indent=1,
    )
)
