"""Values for tests/schedules.rs, from torch.optim.lr_scheduler.

    pip install torch
    python schedules.py > schedules.json

The factors on the learning rate at each of TOTAL steps. Warm-ups are `LinearLR` before the rest (`SequentialLR`) or, where
the moments count from the start of the run, beside it (`ChainedScheduler`). One-cycle's momentum is left alone.
"""

import json

import torch
from torch.optim import lr_scheduler as s

TOTAL = 40


def warm(optimizer, up):
    return s.LinearLR(optimizer, start_factor=1 / up, total_iters=up - 1)


def one_cycle(optimizer, peak, start, end):
    return s.OneCycleLR(
        optimizer,
        max_lr=1.0,
        total_steps=TOTAL,
        pct_start=peak,
        anneal_strategy="linear",
        cycle_momentum=False,
        div_factor=1 / start,
        final_div_factor=start / end,
    )


CASES = {
    "constant:warmup=0.25": lambda o: warm(o, 10),
    "cosine": lambda o: s.CosineAnnealingLR(o, T_max=TOTAL),
    "cosine:warmup=0.25": lambda o: s.SequentialLR(o, [warm(o, 10), s.CosineAnnealingLR(o, T_max=TOTAL - 10)], [10]),
    "step": lambda o: s.StepLR(o, step_size=12, gamma=0.1),
    "step:every=0.125,factor=0.5,warmup=0.2": lambda o: s.ChainedScheduler(
        [warm(o, 8), s.StepLR(o, step_size=5, gamma=0.5)]
    ),
    "milestones": lambda o: s.MultiStepLR(o, milestones=[20, 30], gamma=0.1),
    "milestones:at=0.2/0.6/0.9,factor=0.5,warmup=0.1": lambda o: s.ChainedScheduler(
        [warm(o, 4), s.MultiStepLR(o, milestones=[8, 24, 36], gamma=0.5)]
    ),
    "onecycle": lambda o: one_cycle(o, 0.3, 0.04, 1e-4),
    "onecycle:peak=0.55,start=0.25,end=0.01": lambda o: one_cycle(o, 0.55, 0.25, 0.01),
    "exponential": lambda o: s.ExponentialLR(o, gamma=0.01 ** (1 / (TOTAL - 1))),
}


def run(make):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = make(optimizer)
    rates = []
    for _ in range(TOTAL):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return rates


print(
    json.dumps(
        {
            "torch": torch.__version__.split("+")[0],
            "total": TOTAL,
            "cases": [{"schedule": name, "rates": run(make)} for name, make in CASES.items()],
        },
        indent=1,
    )
)
