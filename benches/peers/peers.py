"""What the comparisons share: the same shapes in our engine, PyTorch and onnxruntime, in turn in one run.

A case is a PyTorch module with the name that `step_time` gives it, its batch and its optimizer. Every engine gets its best
honest setting: each setting is timed, and the fastest median counts (see README.md).
"""

import io
import itertools
import json
import pathlib
import statistics
import subprocess
import sys
import time
import warnings
from dataclasses import dataclass
from typing import Callable

import torch
from torch import nn

try:
    import onnxruntime
except ImportError:
    onnxruntime = None

ROOT = pathlib.Path(__file__).resolve().parents[2]


@dataclass
class Case:
    """One network: `name` as step_time prints it, `optimizer(parameters, **implementation)`."""

    name: str
    build: Callable[[], nn.Module]
    batch: int
    optimizer: Callable


def median_ms(run, seconds):
    for _ in range(5):
        run()
    times, begun = [], time.perf_counter()
    while time.perf_counter() - begun < seconds:
        start = time.perf_counter()
        run()
        times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times)


def batch_of(case, count, layout):
    return torch.rand(count, 1, 28, 28).to(memory_format=layout), torch.randint(0, 10, (count,))


def variants(case, compiled):
    """The module in each layout, as it is and, where a compiler works, compiled."""
    for layout in (torch.contiguous_format, torch.channels_last):
        for compile_it in (False, True) if compiled else (False,):
            torch.manual_seed(0)
            net = case.build().to(memory_format=layout)
            # Else the compiler gives up on the next network of the same kind and falls back to eager.
            torch.compiler.reset()
            yield layout, (torch.compile(net) if compile_it else net)


def pytorch(case, threads, seconds, compiled):
    torch.set_num_threads(threads)
    best = {}

    def keep(name, run):
        best[name] = min(best.get(name, float("inf")), median_ms(run, seconds))

    for implementation in ({"fused": True}, {"foreach": True}):
        for layout, net in variants(case, compiled):
            optimizer = case.optimizer(net.parameters(), **implementation)
            x, t = batch_of(case, case.batch, layout)

            def step():
                optimizer.zero_grad(set_to_none=True)
                nn.functional.cross_entropy(net(x), t).backward()
                optimizer.step()

            keep(f"training step, batch {case.batch}", step)
    for count in (case.batch, 1):
        for layout, net in variants(case, compiled):
            net.eval()
            x, _ = batch_of(case, count, layout)
            with torch.inference_mode():
                keep(f"inference, batch {count}", lambda: net(x))
    return best


def onnx(case, threads, seconds):
    """Inference of the exported module; nothing without onnxruntime."""
    if onnxruntime is None:
        return {}
    best = {}
    for count in (case.batch, 1):
        x, _ = batch_of(case, count, torch.contiguous_format)
        file = io.BytesIO()
        torch.onnx.export(case.build().eval(), (x,), file, input_names=["x"], dynamo=False)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(file.getvalue(), options, providers=["CPUExecutionProvider"])
        feed = {"x": x.numpy()}
        best[f"inference, batch {count}"] = median_ms(lambda: session.run(None, feed), seconds)
    return best


def striate(case, threads, seconds):
    binary = ROOT / "target/release/examples/step_time"
    command = [binary, str(threads), str(seconds), f"{case.name}:"]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    return {row["name"].removeprefix(f"{case.name}: "): row["ms"] for row in map(json.loads, lines)}


def can_compile():
    """Whether torch.compile works here: it needs a C++ compiler."""
    try:
        with torch.inference_mode():
            torch.compile(nn.Linear(2, 2))(torch.zeros(1, 2))
        return True
    except Exception as error:  # Whatever is missing, the other settings remain.
        print(f"torch.compile does not work here and is left out: {type(error).__name__}", file=sys.stderr)
        return False


def compare(cases):
    """Prints a table of medians over the rounds. Arguments: rounds, seconds a measurement, threads ("1,2")."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 1.0
    counts = [int(n) for n in sys.argv[3].split(",")] if len(sys.argv) > 3 else [1, 2]
    warnings.filterwarnings("ignore")
    build = ["cargo", "build", "--release", "-q", "-p", "striate", "--example", "step_time"]
    subprocess.run(build, check=True, cwd=ROOT)
    compiled = can_compile()
    versions = f"PyTorch {torch.__version__}" + (f", onnxruntime {onnxruntime.__version__}" if onnxruntime else "")
    print(f"{versions}; medians of {rounds} rounds of {seconds} s, in ms, each engine at its best setting")
    print("| network | work | threads | striate | PyTorch | ratio | onnxruntime | ratio |")
    print("|---|---|---|---|---|---|---|---|")
    for case, threads in itertools.product(cases, counts):
        runs = [
            (striate(case, threads, seconds), pytorch(case, threads, seconds, compiled), onnx(case, threads, seconds))
            for _ in range(rounds)
        ]
        for work in runs[0][0]:
            mine, theirs, exported = (
                statistics.median(run[engine][work] for run in runs) if work in runs[0][engine] else None
                for engine in range(3)
            )
            last = f"{exported:.3f} | {exported / mine:.1f}" if exported else "- | -"
            row = f"{mine:.3f} | {theirs:.3f} | {theirs / mine:.1f} | {last}"
            print(f"| {case.name} | {work} | {threads} | {row} |", flush=True)
