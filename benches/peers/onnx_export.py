"""Whether exported models give the same logits elsewhere: every file is checked by onnx (full_check) and run by onnxruntime
on the test vectors of its .safetensors.

    python benches/peers/onnx_export.py [MODEL...]            models of the zoo (all, unless named), with fresh weights
    python benches/peers/onnx_export.py MODEL.safetensors MODEL.onnx

Needs `pip install onnx onnxruntime numpy`.
"""

import pathlib
import subprocess
import sys
import tempfile

from built import ROOT

TOLERANCE = 1e-4

sys.path.insert(0, str(ROOT / "crates/striate-cli/src"))
from verify_onnx import check  # noqa: E402  the script that `striate verify --with onnxruntime` runs


def example(*arguments):
    command = ["cargo", "run", "--release", "--quiet", "-p", "striate", "--example", "zoo_onnx", "--", *arguments]
    return subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.PIPE, text=True).stdout.split()


def compare(weights, graph):
    found = check(str(weights), str(graph))
    checker = "passes" if found["onnx_checker"] else "not installed"
    difference, largest = found["max_abs_difference"], found["largest_logit"]
    print(f"| {graph.name} | {difference:.1e} | {largest:.2g} | {checker} |", flush=True)
    # Fresh weights of a deep network make logits of thousands.
    return difference <= TOLERANCE * max(1.0, largest) and found["onnx_checker"]


def main():
    names = sys.argv[1:]
    print("| file | largest difference of a logit | largest logit | onnx.checker |\n|---|---|---|---|")
    if len(names) == 2 and names[1].endswith(".onnx"):
        passed = [compare(pathlib.Path(names[0]), pathlib.Path(names[1]))]
    else:
        passed = []
        for name in names or example():
            # One at a time: all of them are gigabytes.
            with tempfile.TemporaryDirectory() as directory:
                example(directory, name)
                path = pathlib.Path(directory)
                passed += [compare(path / f"{name}.safetensors", path / f"{name}{end}") for end in (".onnx", "-u8.onnx")]
    print(f"{sum(passed)} of {len(passed)} within {TOLERANCE} of max(1, largest logit)")
    sys.exit(not all(passed))


if __name__ == "__main__":
    main()
