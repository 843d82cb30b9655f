"""Prediction over HTTP: `striate serve` and the same model in onnxruntime behind FastAPI and uvicorn, under the same load.

    pip install onnxruntime numpy pillow fastapi uvicorn
    apt install wrk
    python benches/peers/serve.py MODEL [--connections 1,32,256] [--seconds 10] [--rounds 3] [--threads 2]

Each request posts one small PNG file; the servers take turns, and wrk (a load generator that is far faster than either)
counts. Printed are requests a second, the median and the 99th percentile of the time to an answer, and answers that were
no 2xx. Where there are processors enough, give the servers and wrk some of their own: --servers 0-3 --load 4-7.
"""

import argparse
import contextlib
import io
import json
import os
import pathlib
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

import numpy
from PIL import Image

from built import built

PEER = """
import io
import os

import numpy
import onnxruntime
from fastapi import FastAPI, Request
from PIL import Image

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = int(os.environ["THREADS"])
session = onnxruntime.InferenceSession(os.environ["MODEL"], options, providers=["CPUExecutionProvider"])
name, classes = session.get_inputs()[0].name, os.environ["CLASSES"].split("\\n")
app = FastAPI()


def softmax(logits):
    powers = numpy.exp(logits - logits.max())
    return powers / powers.sum()


@app.post("/predict")
async def predict(request: Request):
    image = Image.open(io.BytesIO(await request.body())).convert(os.environ["MODE"])
    pixels = numpy.asarray(image, dtype=numpy.uint8)
    pixels = pixels[None, None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)[None]
    probabilities = softmax(session.run(None, {name: pixels})[0][0])
    order = probabilities.argsort()[::-1][:5]
    top = [{"class": classes[k], "index": int(k), "probability": float(probabilities[k])} for k in order]
    return {"prediction": {**top[0], "top": top}}


@app.get("/healthz")
async def healthz():
    return {"status": "ok"}
"""


def options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a model file or a run directory")
    parser.add_argument("--connections", default="1,32,256", help="a list; each is a load of its own")
    parser.add_argument("--seconds", type=int, default=10, help="of each load")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each server; medians are printed")
    parser.add_argument("--threads", type=int, default=2, help="of each engine")
    parser.add_argument("--workers", type=int, default=1, help="processes of uvicorn")
    parser.add_argument("--servers", help="processors of the servers, as taskset takes them")
    parser.add_argument("--load", help="processors of wrk")
    parser.add_argument("--striate", default=str(built("striate")), help="the program")
    return parser.parse_args()


def pinned(processors, command):
    return ["taskset", "-c", processors, *command] if processors else command


@contextlib.contextmanager
def server(command, url, environment=None):
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        try:
            for _ in range(200):
                time.sleep(0.1)
                with contextlib.suppress(OSError):
                    urllib.request.urlopen(f"{url}/healthz").read()
                    break
                if process.poll() is not None:
                    log.seek(0)
                    sys.exit(f"{command[0]} ended: {log.read().decode()}")
            else:
                sys.exit(f"{url} does not answer")
            yield
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(60)


def ask(url, image):
    request = urllib.request.Request(f"{url}/predict", image, {"Content-Type": "image/png"})
    return json.load(urllib.request.urlopen(request))["prediction"]


def load(args, url, connections, script):
    threads = 1 if connections < 8 else 2
    command = ["wrk", "--latency", f"-t{threads}", f"-c{connections}", f"-d{args.seconds}s", "-s", script, f"{url}/predict"]
    text = subprocess.run(pinned(args.load, command), capture_output=True, text=True, check=True).stdout
    unit = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4}

    def milliseconds(percent):
        number, of = re.search(rf"^ +{percent}% +([\d.]+)([a-z]+)$", text, re.M).groups()
        return float(number) * unit[of]

    wrong = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    sockets = re.search(r"Socket errors: (.*)", text)
    if sockets:
        print(f"  {url}: socket errors: {sockets.group(1)}", file=sys.stderr)
    rate = float(re.search(r"Requests/sec: +([\d.]+)", text).group(1))
    return rate, milliseconds(50), milliseconds(99), int(wrong.group(1)) if wrong else 0


def main():
    args = options()
    for tool in ["wrk"] + (["taskset"] if args.servers or args.load else []):
        if not shutil.which(tool):
            sys.exit(f"{tool} is needed")
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as running:
        folder = pathlib.Path(folder)
        onnx = folder / "model.onnx"
        subprocess.run([args.striate, "convert", args.model, str(onnx), "--with-preprocessing", "--quiet"], check=True)
        (folder / "peer.py").write_text(PEER)
        ours, theirs = "http://127.0.0.1:7891", "http://127.0.0.1:7892"
        command = [args.striate, "serve", args.model, "--addr", "127.0.0.1:7891", "--threads", str(args.threads)]
        command += ["--quiet", "--queue", "4096", "--max-connections", "4096"]
        running.enter_context(server(pinned(args.servers, command), ours))
        about = json.load(urllib.request.urlopen(f"{ours}/model"))
        channels, height, width = about["input"]
        environment = {
            **os.environ,
            "MODEL": str(onnx),
            "THREADS": str(args.threads),
            "MODE": "L" if channels == 1 else "RGB",
            "CLASSES": "\n".join(about["classes"]),
        }
        command = [sys.executable, "-m", "uvicorn", "--app-dir", str(folder), "--host", "127.0.0.1", "--port", "7892"]
        command += ["--workers", str(args.workers), "--log-level", "warning", "peer:app"]
        running.enter_context(server(pinned(args.servers, command), theirs, environment))

        # A stroke, light on dark, as the data has digits.
        y, x = numpy.mgrid[0:height, 0:width]
        ink = numpy.clip(3.0 - abs(x - width * 0.7 + y * 0.4), 0, 1) * ((y > 3) & (y < height - 4))
        pixels = (ink * 255).astype(numpy.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels if channels == 1 else numpy.stack([pixels] * 3, -1)).save(file, "PNG")
        image = folder / "image.png"
        image.write_bytes(file.getvalue())
        answers = [ask(url, file.getvalue()) for url in (ours, theirs)]
        print("the same image:", *(f"{a['class']} ({a['probability']:.4f})" for a in answers))
        script = folder / "post.lua"
        script.write_text(
            f'local file = io.open("{image}", "rb")\nwrk.method = "POST"\nwrk.body = file:read("*all")\n'
            'wrk.headers["Content-Type"] = "image/png"\n'
        )
        print(f"{'connections':>11}  {'server':<22}{'requests/s':>11}{'p50 ms':>9}{'p99 ms':>9}{'not 2xx':>9}")
        for connections in map(int, args.connections.split(",")):
            found = {"striate": [], "onnxruntime, FastAPI": []}
            for _ in range(args.rounds):
                for (name, rows), url in zip(found.items(), (ours, theirs)):
                    load_of = load(args, url, connections, str(script))
                    rows.append(load_of)
            for name, rows in found.items():
                rate, p50, p99 = (statistics.median(row[k] for row in rows) for k in range(3))
                wrong = sum(row[3] for row in rows)
                print(f"{connections:>11}  {name:<22}{rate:>11.0f}{p50:>9.2f}{p99:>9.2f}{wrong:>9}", flush=True)


if __name__ == "__main__":
    main()
