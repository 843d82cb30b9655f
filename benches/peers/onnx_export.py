"""Whether exported models give the same logits elsewhere: every file is checked by onnx (full_check) and run by onnxruntime
on the test vectors of its .safetensors.

    python benches/peers/onnx_export.py                       every model of the zoo, with fresh weights
    python benches/peers/onnx_export.py MODEL.safetensors MODEL.onnx

Needs `pip install onnx onnxruntime numpy`.
"""

import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOLERANCE = 1e-4

sys.path.insert(0, str(ROOT / "crates/striate-cli/src"))
from verify_onnx import check  # noqa: E402  the script that `striate verify --with onnxruntime` runs


def main():
    if len(sys.argv) == 3:
        pairs = [(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))]
    else:
        directory = pathlib.Path(tempfile.mkdtemp())
        example = ["cargo", "run", "--release", "--quiet", "-p", "striate", "--example", "zoo_onnx", "--", str(directory)]
        names = subprocess.run(example, check=True, cwd=ROOT, stdout=subprocess.PIPE, text=True).stdout.split()
        pairs = [(directory / f"{n}.safetensors", directory / f"{n}{e}") for n in names for e in (".onnx", "-u8.onnx")]
    failed = 0
    checker = {True: "passes", False: "not installed"}
    print("| file | largest difference of a logit | largest logit | onnx.checker |\n|---|---|---|---|")
    for weights, graph in pairs:
        found = check(str(weights), str(graph))
        failed += not found["max_abs_difference"] <= TOLERANCE or not found["onnx_checker"]
        print(f"| {graph.name} | {found['max_abs_difference']:.1e} | {found['largest_logit']:.2g} | {checker[found['onnx_checker']]} |", flush=True)
    print(f"{len(pairs) - failed} of {len(pairs)} within {TOLERANCE}")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
