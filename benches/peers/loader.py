"""Decoding and resizing a folder of images: Striate against PyTorch's DataLoader with torchvision, in one run.

    pip install torch torchvision
    cargo build --release -p striate --example load_time
    python3 benches/peers/loader.py DIR 3,224,224 [--workers 2] [--torch-workers 1,2,3] [--enlarge 500x375] [--count 1000]

DIR is a folder with one folder a class, or train/ and test/ of those. Of its images --count, evenly spread, are first copied to
a temporary folder; with --enlarge as JPEG files (quality 90) of that size with grain, as photographs would be. Both resize with the
antialiased triangle filter and give float batches of 64. Striate has --workers threads; of PyTorch the best of --torch-workers
processes counts. The files were just written, so both find them in the page cache. Prints images a second, the best of --repeat
rounds: `read` is once into memory, `stream` decodes batches as training does; torch_pillow is ImageFolder's default with
transforms.Resize, torch_v2 Pillow's decoder with transforms.v2 on tensors of bytes, torch_io torchvision.io.decode_image
with the same.
"""
import argparse, json, os, pathlib, subprocess, tempfile, time, warnings

import numpy as np
import torch, torchvision
from PIL import Image
from torchvision import transforms
from torchvision.transforms import v2

from built import built

parser = argparse.ArgumentParser()
parser.add_argument("directory", type=pathlib.Path)
parser.add_argument("shape")
parser.add_argument("--workers", type=int, default=os.cpu_count())
parser.add_argument("--torch-workers", default="1,2,3")
parser.add_argument("--batch", type=int, default=64)
parser.add_argument("--enlarge")
parser.add_argument("--count", type=int, default=2000)
parser.add_argument("--repeat", type=int, default=2)
parser.add_argument("--binary", default=built("examples/load_time"))
args = parser.parse_args()
channels, height, width = map(int, args.shape.split(","))
torch.set_num_threads(1)
# More workers than cores may be the best number.
warnings.filterwarnings("ignore", message="This DataLoader will create")

directory = args.directory / "train" if (args.directory / "train").is_dir() else args.directory
temporary = tempfile.TemporaryDirectory()
files = sorted(p for p in directory.rglob("*") if p.suffix.lower() in {".jpg", ".jpeg", ".png"})
files = files[:: max(1, len(files) // args.count)][: args.count]
folder = pathlib.Path(temporary.name)


grain = np.random.default_rng(1)


def place(file):
    target = folder / file.parent.name / (file.stem + ".jpg")
    target.parent.mkdir(exist_ok=True)
    if args.enlarge:
        size = tuple(map(int, args.enlarge.split("x")))
        pixels = np.asarray(Image.open(file).convert("RGB").resize(size, Image.Resampling.BICUBIC), dtype=np.float32)
        # With a camera's grain the file is as long as a photograph's; smooth pictures decode too fast.
        pixels = pixels + 8 * grain.standard_normal((size[1], size[0], 1), dtype=np.float32)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(target, quality=90)
    else:
        target.write_bytes(file.read_bytes())


for file in files:
    place(file)
count = len(files)


def striate():
    run = subprocess.run([args.binary, str(folder), args.shape, str(args.batch)], capture_output=True, text=True, check=True,
                         env={**os.environ, "RAYON_NUM_THREADS": str(args.workers)})
    return json.loads(run.stdout)


class Decoded(torchvision.datasets.ImageFolder):
    """torchvision's own decoder instead of Pillow."""
    resize = v2.Compose([v2.Resize((height, width), antialias=True), v2.ToDtype(torch.float32, scale=True)])

    def __getitem__(self, index):
        path, label = self.samples[index]
        return self.resize(torchvision.io.decode_image(path, mode=torchvision.io.ImageReadMode.RGB)), label


def pytorch(data, workers):
    loader = torch.utils.data.DataLoader(data, args.batch, num_workers=workers, persistent_workers=True)
    # The workers are started before the clock, by a first round, and begin the second one with empty hands.
    for _ in loader:
        pass
    begun = time.perf_counter()
    images = sum(len(batch) for batch, _ in loader)
    return images / (time.perf_counter() - begun)


peers = {
    "torch_pillow": torchvision.datasets.ImageFolder(folder, transforms.Compose([
        transforms.Resize((height, width)), transforms.ToTensor()])),
    "torch_v2": torchvision.datasets.ImageFolder(folder, v2.Compose([
        v2.PILToTensor(), v2.Resize((height, width), antialias=True), v2.ToDtype(torch.float32, scale=True)])),
    "torch_io": Decoded(folder),
}
rounds = []
for _ in range(args.repeat):
    ours = striate()
    found = {"striate_read": (ours["read_per_second"], args.workers), "striate_stream": (ours["stream_per_second"], args.workers)}
    for name, data in peers.items():
        speeds = [(round(pytorch(data, int(workers))), int(workers)) for workers in args.torch_workers.split(",")]
        found[name] = max(speeds)
    rounds.append(found)
best = {name: max(r[name] for r in rounds) for name in rounds[0]}
print(json.dumps({"files": count, "to": args.shape, "torch": torch.__version__, "torchvision": torchvision.__version__,
                  "images_per_second": {name: speed for name, (speed, _) in best.items()},
                  "workers": {name: workers for name, (_, workers) in best.items()}}))
