#!/usr/bin/env python3
"""Writes the ONNX project's own tests of operators, which its Python package holds, as files.

  pip install onnx
  python3 scripts/onnx_node_tests.py DIR
  STRIATE_ONNX_TESTS=DIR cargo test --release -p striate --lib -- --ignored --nocapture onnx_conformance

DIR gets a folder a test: model.onnx, input_0.pb, ..., output_0.pb, ... and tolerance.txt (relative, absolute).
"""
import pathlib
import sys

import onnx
from onnx import numpy_helper
from onnx.backend.test.case.node import collect_testcases


def tensor(value, name: str):
    if isinstance(value, onnx.TensorProto):
        return value
    return numpy_helper.from_array(value, name)


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    directory = pathlib.Path(sys.argv[1])
    written = skipped = 0
    for case in collect_testcases():
        graph = case.model.graph
        values = [*graph.input, *graph.output]
        # Lists, maps and optional values are no tensors.
        if not all(value.type.HasField("tensor_type") for value in values) or len(case.data_sets) != 1:
            skipped += 1
            continue
        inputs, outputs = case.data_sets[0]
        folder = directory / case.name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "model.onnx").write_bytes(case.model.SerializeToString())
        for kind, given, infos in (("input", inputs, graph.input), ("output", outputs, graph.output)):
            for i, (value, info) in enumerate(zip(given, infos)):
                (folder / f"{kind}_{i}.pb").write_bytes(tensor(value, info.name).SerializeToString())
        (folder / "tolerance.txt").write_text(f"{case.rtol} {case.atol}\n")
        written += 1
    print(f"onnx {onnx.__version__}: {written} tests written, {skipped} with other values than tensors left out")


if __name__ == "__main__":
    main()
