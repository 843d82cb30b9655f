"""Whether an exported model gives the same logits in onnxruntime:

    python verify_onnx.py MODEL.safetensors MODEL.onnx

Runs the ONNX file on the test vectors of the model file, all at once and one at a time, and prints one line of JSON with
the largest difference of a logit. A file exported with preprocessing gets the pixels. With the `onnx` package installed,
its checker goes over the file first. Needs `pip install onnxruntime numpy`.
"""

import json
import sys

try:
    import numpy
    import onnxruntime
except ImportError as error:
    sys.exit(f"{error}; install it: pip install onnxruntime numpy")

NUMBERS = {"F32": "<f4", "U8": "u1", "I8": "i1", "I32": "<i4"}


def read(path):
    """Metadata and arrays of a safetensors file."""
    with open(path, "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        data = file.read()
    metadata = header.pop("__metadata__")
    arrays = {}
    for name, info in header.items():
        start, end = info["data_offsets"]
        arrays[name] = numpy.frombuffer(data[start:end], NUMBERS[info["dtype"]]).reshape(info["shape"])
    return metadata, arrays


def check(weights, graph):
    metadata, arrays = read(weights)
    checked = True
    try:
        import onnx

        onnx.checker.check_model(onnx.load(graph), full_check=True)
    except ImportError:
        checked = False
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    x, expected = arrays["striate.test.inputs"], arrays["striate.test.logits"]
    if session.get_modelmeta().custom_metadata_map.get("striate.includes_normalization") == "true":
        if "striate.test.pixels" in arrays:
            x = arrays["striate.test.pixels"]
        else:
            scale = json.loads(metadata["striate.preprocessing"])["normalization"]
            mean, deviation = (numpy.array(scale[key]).reshape(-1, 1, 1) for key in ("mean", "deviation"))
            x = numpy.rint((x * deviation + mean) * 255).astype(numpy.uint8)

    def run(batch):
        return session.run(["logits"], {"input": batch})[0]

    single = numpy.concatenate([run(x[i : i + 1]) for i in range(len(x))])
    difference = max(float(numpy.abs(y - expected).max()) for y in (run(x), single))
    return {
        "vectors": len(x),
        "max_abs_difference": difference,
        "largest_logit": float(numpy.abs(expected).max()),
        "onnx_checker": checked,
        "onnxruntime": onnxruntime.__version__,
    }


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    try:
        print(json.dumps(check(sys.argv[1], sys.argv[2])))
    except Exception as error:  # onnx, onnxruntime and numpy have each their own
        sys.exit(f"{sys.argv[2]}: {type(error).__name__}: {' '.join(str(error).split())[:500]}")
