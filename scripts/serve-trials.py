#!/usr/bin/env python3
"""Ten thousand connections that mean no good, and good requests among them: none of the good ones may be lost.

    cargo build --release
    scripts/serve-trials.py RUN [--connections 10000] [--requests 2000]

A third of the connections say nothing, a third send half a head, a third a body that never ends; whichever the server closes is
opened again. Beside them go requests with too large, malformed and exploding bodies, and good ones, each on a connection of its own
and with its answer compared. Printed are the good requests answered and lost, their median and 99th percentile, and the server's
peak memory. Needs nothing but Python.
"""

import argparse
import asyncio
import base64
import json
import multiprocessing
import os
import pathlib
import resource
import signal
import struct
import subprocess
import sys
import time
import zlib

ROOT = pathlib.Path(__file__).resolve().parents[1]
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))


def png(width, height, pixel):
    """A grey PNG file."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + bytes(pixel(x, y) for x in range(width)) for y in range(height))
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def bomb(side):
    """A few kilobytes that hold side x side pixels."""
    squeeze = zlib.compressobj(9)
    rows = b"".join(squeeze.compress(bytes(side + 1)) for _ in range(side)) + squeeze.flush()

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


class Trial:
    def __init__(self, host, port):
        self.host, self.port = host, port
        self.open = self.closed = 0
        self.answers = {}
        self.over = False

    async def connect(self):
        for wait in (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2):
            try:
                return await asyncio.open_connection(self.host, self.port)
            except OSError:
                await asyncio.sleep(wait)
        return await asyncio.open_connection(self.host, self.port)

    def head(self, kind, length):
        return (
            f"POST /predict HTTP/1.1\r\nHost: {self.host}:{self.port}\r\nContent-Type: {kind}\r\n"
            f"Content-Length: {length}\r\nConnection: close\r\n\r\n"
        ).encode()

    async def post(self, kind, body):
        reader, writer = await self.connect()
        try:
            writer.write(self.head(kind, len(body)) + body)
            answer = await asyncio.wait_for(reader.read(), 120)
        finally:
            writer.close()
        head, _, rest = answer.partition(b"\r\n\r\n")
        return int(head.split(b" ", 2)[1]), rest

    async def idle(self, which):
        """A connection that means no good, for as long as the trial lasts."""
        while not self.over:
            try:
                reader, writer = await self.connect()
            except OSError:
                continue
            self.open += 1
            try:
                if which % 3 == 1:
                    writer.write(b"POST /predict HTTP/1.1\r\nHost:")
                elif which % 3 == 2:
                    writer.write(self.head("image/png", 5000) + b"x")
                while not self.over and await asyncio.wait_for(reader.read(4096), 600):
                    pass
            except (OSError, asyncio.TimeoutError):
                pass
            self.open -= 1
            self.closed += 1
            writer.close()
            await asyncio.sleep(0.5)

    async def bad(self, bodies):
        """Requests that can't be answered, one after the other."""
        at = 0
        while not self.over:
            kind, body, expected = bodies[at % len(bodies)]
            at += 1
            try:
                status, _ = await self.post(kind, body)
            except (OSError, IndexError, ValueError, asyncio.TimeoutError):
                status = "closed"
            self.answers.setdefault(expected, {}).setdefault(status, 0)
            self.answers[expected][status] += 1

    async def good(self, count, image, expected, times, lost):
        for _ in range(count):
            begun = time.perf_counter()
            try:
                # Being told to come again is no loss; coming again is what a client does.
                for _ in range(100):
                    status, body = await self.post("image/png", image)
                    if status != 503:
                        break
                    await asyncio.sleep(1)
                if status != 200 or json.loads(body)["prediction"]["index"] != expected:
                    lost.append(f"{status}: {body[:200]}")
            except Exception as error:
                lost.append(repr(error))
            times.append(time.perf_counter() - begun)


async def attack(args, host, port, image, over, told):
    """All that means no good, until `over`; what became of it is `told`."""
    this = Trial(host, port)
    bad = [
        ("image/png", bytes(20 << 20), "413 too large"),
        ("image/png", bomb(8000), "413 a bomb"),
        ("image/png", image[: len(image) // 2], "400 cut"),
        ("application/json", b"[" * 100_000, "400 nested"),
        ("application/json", json.dumps({"image": base64.b64encode(b"no image").decode()}).encode(), "400 no image"),
        ("multipart/form-data", b"--x", "400 no form"),
    ]
    idle = [asyncio.create_task(this.idle(which)) for which in range(args.connections)]
    others = [asyncio.create_task(this.bad(bad[k:] + bad[:k])) for k in range(4)]
    most = 0
    while not over.is_set():
        most = max(most, this.open)
        await asyncio.sleep(0.2)
    this.over = True
    for task in idle + others:
        task.cancel()
    await asyncio.gather(*idle, *others, return_exceptions=True)
    told.put((most, this.closed, this.answers))


async def trial(args, host, port, image, expected):
    """The good requests; whether all were answered."""
    this = Trial(host, port)
    times, lost = [], []
    begun = time.perf_counter()
    await asyncio.gather(*(this.good(args.requests // 16, image, expected, times, lost) for _ in range(16)))
    took = time.perf_counter() - begun
    times.sort()
    at = lambda share: 1000 * times[min(int(share * len(times)), len(times) - 1)]
    print(f"good requests: {len(times)} in {took:.1f} s, lost {len(lost)}; p50 {at(0.5):.1f} ms, p99 {at(0.99):.1f} ms")
    for one in lost[:5]:
        print(f"  lost: {one}")
    return not lost


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a model of MNIST's digits, or a run directory")
    parser.add_argument("--connections", type=int, default=10_000)
    parser.add_argument("--requests", type=int, default=2_000)
    parser.add_argument("--max-connections", type=int, default=12_000, help="of the server")
    parser.add_argument("--settle", type=float, default=10, help="seconds before the good requests")
    parser.add_argument("--striate", default=str(TARGET / "release/striate"), help="the program")
    args = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    command = [args.striate, "serve", args.model, "--addr", "127.0.0.1:0", "--json"]
    command += ["--max-connections", str(args.max_connections)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    address = json.loads(server.stdout.readline())["address"]
    host, port = address.rsplit(":", 1)
    image = png(28, 28, lambda x, y: 255 if abs(x - 14) < 2 and 4 < y < 24 else 0)
    _, body = asyncio.run(Trial(host, int(port)).post("image/png", image))
    expected = json.loads(body)["prediction"]["index"]
    # In a process of their own, so that the good clients are no slower for them.
    over, told = multiprocessing.Event(), multiprocessing.Queue()
    parameters = (args, host, int(port), image, over, told)
    attacker = multiprocessing.Process(target=lambda: asyncio.run(attack(*parameters)))
    attacker.start()
    time.sleep(args.settle)
    well = asyncio.run(trial(args, host, int(port), image, expected))
    over.set()
    most, closed, answers = told.get()
    attacker.join()
    print(f"connections that mean no good: {most} open at once, closed by the server {closed} times")
    for kind, found in sorted(answers.items()):
        print(f"  {kind}: " + ", ".join(f"{status} x {count}" for status, count in found.items()))
    peak = next((line for line in open(f"/proc/{server.pid}/status") if line.startswith("VmHWM")), "VmHWM: ?")
    print(f"the server's peak memory: {' '.join(peak.split()[1:])}")
    server.send_signal(signal.SIGINT)
    if server.wait(60) != 0:
        sys.exit("the server did not end well")
    sys.exit(0 if well else 1)


if __name__ == "__main__":
    main()
