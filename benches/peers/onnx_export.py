"""Whether exported models give the same logits elsewhere: every file is checked by onnx (full_check) and run by onnxruntime
on the test vectors of its .safetensors.

    python benches/peers/onnx_export.py                       every model of the zoo, with fresh weights
    python benches/peers/onnx_export.py MODEL.safetensors MODEL.onnx

Needs `pip install onnx onnxruntime safetensors numpy`.
"""

import json
import pathlib
import subprocess
import sys
import tempfile

import numpy
import onnx
import onnxruntime
from safetensors import safe_open

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOLERANCE = 1e-4


def logits(path, x):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(["logits"], {"input": x})[0]


def compare(weights, graph, pixels=None):
    """The largest difference of a logit, relative to max(1, the largest logit); also one sample at a time."""
    model = onnx.load(str(graph))
    onnx.checker.check_model(model, full_check=True)
    with safe_open(str(weights), "numpy") as file:
        x, expected = file.get_tensor("striate.test.inputs"), file.get_tensor("striate.test.logits")
        preprocessing = json.loads(file.metadata()["striate.preprocessing"])
    if json.loads({p.key: p.value for p in model.metadata_props}["striate.includes_normalization"]):
        mean, deviation = (numpy.array(preprocessing["normalization"][k]).reshape(-1, 1, 1) for k in ("mean", "deviation"))
        x = numpy.rint((x * deviation + mean) * 255).astype(numpy.uint8)
    whole = logits(graph, x)
    single = numpy.concatenate([logits(graph, x[i : i + 1]) for i in range(len(x))])
    return max(numpy.abs(y - expected).max() / max(1, numpy.abs(expected).max()) for y in (whole, single))


def main():
    if len(sys.argv) == 3:
        pairs = [(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))]
    else:
        directory = pathlib.Path(tempfile.mkdtemp())
        example = ["cargo", "run", "--release", "--quiet", "-p", "striate", "--example", "zoo_onnx", "--", str(directory)]
        names = subprocess.run(example, check=True, cwd=ROOT, stdout=subprocess.PIPE, text=True).stdout.split()
        pairs = [(directory / f"{n}.safetensors", directory / f"{n}{e}") for n in names for e in (".onnx", "-u8.onnx")]
    failed = 0
    print("| file | largest difference |\n|---|---|")
    for weights, graph in pairs:
        difference = compare(weights, graph)
        failed += not difference <= TOLERANCE
        print(f"| {graph.name} | {difference:.1e} |")
    print(f"{len(pairs) - failed} of {len(pairs)} within {TOLERANCE}")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
