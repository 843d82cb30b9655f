"""What the comparisons share: the same shapes in our engine, PyTorch, onnxruntime, burn and candle, in turn in one run.

A case is a PyTorch module with the name that `step_time` gives it, its batch and its optimizer. Every engine gets its best
honest setting: the first round times each setting, and the fastest one of each work goes on (see README.md).
"""

import argparse
import io
import itertools
import json
import statistics
import subprocess
import sys
import time
import warnings
from dataclasses import dataclass
from typing import Callable

import torch
from torch import nn

from built import ROOT, built

try:
    import onnxruntime
except ImportError:
    onnxruntime = None


@dataclass
class Case:
    """One network: `name` as step_time prints it, `optimizer(parameters, **implementation)`."""

    name: str
    build: Callable[[], nn.Module]
    batch: int
    optimizer: Callable
    shape: tuple = (1, 28, 28)
    classes: int = 10
    # Large networks are compiled only where asked: it takes minutes a setting.
    large: bool = False


def median_ms(run, seconds):
    begun = time.perf_counter()
    for _ in range(5):
        run()
        if time.perf_counter() - begun > seconds:
            break
    times, begun = [], time.perf_counter()
    while not times or time.perf_counter() - begun < seconds:
        start = time.perf_counter()
        run()
        times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times)


def batch_of(case, count, layout):
    return torch.rand(count, *case.shape).to(memory_format=layout), torch.randint(0, case.classes, (count,))


LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


class PyTorch:
    """Remembers the fastest setting of each work, by case and number of threads."""

    name = f"PyTorch {torch.__version__}"

    def __init__(self, compiled):
        self.compiled = compiled
        self.best = {}

    def settings(self, case, work):
        kinds = ["eager"] + (["compiled"] if self.compiled(case) else [])
        if work == "training":
            return list(itertools.product(LAYOUTS, kinds, ("fused", "foreach")))
        return list(itertools.product(LAYOUTS, kinds + ["frozen"], ("-",)))

    def __call__(self, case, threads, seconds, wanted):
        torch.set_num_threads(threads)
        times = {}
        works = [("training", case.batch)] + [("inference", count) for count in dict.fromkeys((case.batch, 1))]
        for kind, count in works:
            work = f"{'training step' if kind == 'training' else kind}, batch {count}"
            if not wanted(work):
                continue
            key = (case.name, threads, work)
            settings = [self.best[key]] if key in self.best else self.settings(case, kind)
            measured = {}
            for setting in settings:
                try:
                    measured[setting] = self.time(case, kind, count, setting, seconds)
                except Exception as error:  # What a setting can't do, the others can.
                    print(f"{case.name}, {work}: {setting} left out: {type(error).__name__}: {error}", file=sys.stderr)
            self.best[key] = min(measured, key=measured.get)
            times[work] = measured[self.best[key]]
            if len(settings) > 1:
                table = ", ".join(f"{' '.join(s)} {ms:.3f}" for s, ms in sorted(measured.items(), key=lambda x: x[1]))
                print(f"{case.name}, {work}, threads {threads}: {table}", file=sys.stderr)
        return times

    def time(self, case, kind, count, setting, seconds):
        layout, how, implementation = setting
        # Else the compiler gives up on the next network of the same kind and falls back to eager.
        torch.compiler.reset()
        torch.manual_seed(0)
        net = case.build().to(memory_format=LAYOUTS[layout])
        x, t = batch_of(case, count, LAYOUTS[layout])
        if kind == "inference":
            net.eval()
            with torch.inference_mode():
                if how == "frozen":
                    # Folds batch normalisation, hands convolutions to oneDNN with packed weights.
                    net = torch.jit.optimize_for_inference(torch.jit.freeze(torch.jit.trace(net, x)))
                elif how == "compiled":
                    net = torch.compile(net)
                return median_ms(lambda: net(x), seconds)
        optimizer = case.optimizer(net.parameters(), **{implementation: True})
        run = torch.compile(net) if how == "compiled" else net

        def step():
            optimizer.zero_grad(set_to_none=True)
            nn.functional.cross_entropy(run(x), t).backward()
            optimizer.step()

        return median_ms(step, seconds)


def onnx(case, threads, seconds, wanted):
    """Inference of the exported module, with all graph optimisations (the default)."""
    best = {}
    for count in dict.fromkeys((case.batch, 1)):
        if not wanted(f"inference, batch {count}"):
            continue
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


def lines_of(command, case, wanted):
    """What a program of ours or of a peer in Rust printed of this case: one JSON object a line."""
    text = subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True).stdout
    rows = map(json.loads, text.splitlines())
    times = {row["name"].removeprefix(f"{case.name}: "): row["ms"] for row in rows if row["name"].startswith(case.name)}
    return {work: ms for work, ms in times.items() if wanted(work)}


def striate(case, threads, seconds, wanted):
    return lines_of([built("examples/step_time"), threads, seconds, f"{case.name}:", case.batch], case, wanted)


def in_rust(name):
    """A peer of the workspace in `rust/`, for the cases it knows."""
    binary = built(f"{name}-peer", ROOT / "benches/peers/rust")
    return lambda case, threads, seconds, wanted: lines_of([binary, threads, seconds, case.name], case, wanted)


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
    """Prints a table of medians over the rounds."""
    parser = argparse.ArgumentParser()
    parser.add_argument("rounds", nargs="?", type=int, default=3, help="how often the engines take turns")
    parser.add_argument("seconds", nargs="?", type=float, default=1.0, help="how long each measurement lasts")
    parser.add_argument("threads", nargs="?", default="1,2", help="a list")
    parser.add_argument("--case", default="", help="only networks whose name begins so")
    parser.add_argument("--work", default="", help="only works whose name contains this: training, inference, 'batch 1'")
    parser.add_argument("--compile-large", action="store_true", help="torch.compile large networks too: minutes")
    parser.add_argument("--no-build", action="store_true", help="take step_time as it was built last")
    parser.add_argument("--rust", action="store_true", help="also burn and candle, if rust/ is built")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    if not arguments.no_build:
        build = ["cargo", "build", "--release", "-q", "-p", "striate", "--example", "step_time"]
        subprocess.run(build, check=True, cwd=ROOT)
    cases = [case for case in cases if case.name.startswith(arguments.case)]
    compiled = {case.name for case in cases if arguments.compile_large or not case.large}
    works = bool(compiled) and can_compile()
    engines = {"striate": striate, "PyTorch": PyTorch(lambda case: works and case.name in compiled)}
    if onnxruntime:
        engines["onnxruntime"] = onnx
    if arguments.rust:
        engines |= {"burn": in_rust("burn"), "candle": in_rust("candle")}
    versions = f"PyTorch {torch.__version__}" + (f", onnxruntime {onnxruntime.__version__}" if onnxruntime else "")
    print(f"{versions}; medians of {arguments.rounds} rounds of {arguments.seconds} s, in ms, each engine at its best setting", flush=True)
    others = [name for name in engines if name != "striate"]
    print("| network | work | threads | striate | " + " | ".join(f"{name} | ratio" for name in others) + " |")
    print("|---" * (4 + 2 * len(others)) + "|", flush=True)

    def wanted(work):
        return arguments.work in work

    for case in cases:
        for threads in map(int, arguments.threads.split(",")):
            # One after the other within a round, so that a slow minute of the machine meets all of them.
            rounds = [
                {name: run(case, threads, arguments.seconds, wanted) for name, run in engines.items()}
                for _ in range(arguments.rounds)
            ]
            for work in rounds[0]["striate"]:
                medians = {
                    name: statistics.median(r[name][work] for r in rounds) if work in rounds[0][name] else None
                    for name in engines
                }
                mine = medians["striate"]
                row = [f"{medians[n]:.3f} | {medians[n] / mine:.1f}" if medians[n] else "- | -" for n in others]
                print(f"| {case.name} | {work} | {threads} | {mine:.3f} | " + " | ".join(row) + " |", flush=True)
