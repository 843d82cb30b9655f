"""SimpleConvNet (conv 30@5x5 - relu - pool 2x2 - affine 100 - relu - affine 10), ours against PyTorch in one run.

    pip install torch
    python benches/peers/simple_convnet.py [rounds] [seconds]

Both work on the same shapes in turn, at 1 and 2 threads. PyTorch runs in each of its usual settings (contiguous and
channels_last, Adam fused and foreach) and its best median counts. Prints medians over the rounds and the ratio.
"""

import json
import pathlib
import statistics
import subprocess
import sys
import time

import torch
from torch import nn

ROOT = pathlib.Path(__file__).resolve().parents[2]
ROUNDS = int(sys.argv[1]) if len(sys.argv) > 1 else 3
SECONDS = float(sys.argv[2]) if len(sys.argv) > 2 else 2.0


def build(layout):
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 30, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4320, 100), nn.ReLU(), nn.Linear(100, 10)
    )
    return net.to(memory_format=layout)


def median_ms(run):
    for _ in range(3):
        run()
    times, begun = [], time.perf_counter()
    while time.perf_counter() - begun < SECONDS:
        start = time.perf_counter()
        run()
        times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times)


def pytorch(threads):
    torch.set_num_threads(threads)
    best = {}
    for layout in (torch.contiguous_format, torch.channels_last):
        for fused in (True, False):
            net = build(layout)
            optimizer = torch.optim.Adam(net.parameters(), lr=0.001, fused=fused)
            x = torch.rand(100, 1, 28, 28).to(memory_format=layout)
            t = torch.randint(0, 10, (100,))

            def step():
                optimizer.zero_grad(set_to_none=True)
                nn.functional.cross_entropy(net(x), t).backward()
                optimizer.step()

            name = "training step, batch 100, Adam"
            best[name] = min(best.get(name, 1e9), median_ms(step))
        net = build(layout).eval()
        for batch in (100, 1):
            x = torch.rand(batch, 1, 28, 28).to(memory_format=layout)
            with torch.inference_mode():
                name = f"inference, batch {batch}"
                best[name] = min(best.get(name, 1e9), median_ms(lambda: net(x)))
    return best


def ours(threads):
    binary = ROOT / "target/release/examples/step_time"
    lines = subprocess.run([binary, str(threads), str(SECONDS)], check=True, capture_output=True, text=True).stdout
    return {row["name"]: row["ms"] for row in map(json.loads, lines.splitlines())}


subprocess.run(["cargo", "build", "--release", "-q", "-p", "striate", "--example", "step_time"], check=True, cwd=ROOT)
print(f"PyTorch {torch.__version__}; medians of {ROUNDS} rounds of {SECONDS} s, in ms")
print("| work | threads | striate | PyTorch, best setting | ratio |\n|---|---|---|---|---|")
for threads in (1, 2):
    rounds = [(ours(threads), pytorch(threads)) for _ in range(ROUNDS)]
    for name in rounds[0][0]:
        mine = statistics.median(r[0][name] for r in rounds)
        theirs = statistics.median(r[1][name] for r in rounds)
        print(f"| {name} | {threads} | {mine:.3f} | {theirs:.3f} | {theirs / mine:.1f} |", flush=True)
