"""Decoding and resizing a folder of images: Striate against PyTorch's DataLoader with torchvision, in one run.

    pip install torch torchvision
    cargo build --release -p striate --example load_time
    python3 benches/peers/loader.py DIR 3,224,224 [--workers 2] [--enlarge 500x400 --count 2000]

DIR is a folder with one folder a class, or train/ and test/ of those. With --enlarge the first --count of its images are
first written to a temporary folder as JPEG files (quality 90) of that size, as photographs would be. PyTorch uses as many
worker processes as Striate threads; both resize with the antialiased triangle filter and give float batches of 64. The
files are read once before anything is timed, so that both find them in the page cache. Prints images a second.
"""
import argparse, json, os, pathlib, subprocess, tempfile, time
from concurrent.futures import ThreadPoolExecutor

import torch, torchvision
from PIL import Image
from torchvision import transforms
from torchvision.transforms import v2

parser = argparse.ArgumentParser()
parser.add_argument("directory", type=pathlib.Path)
parser.add_argument("shape")
parser.add_argument("--workers", type=int, default=os.cpu_count())
parser.add_argument("--batch", type=int, default=64)
parser.add_argument("--enlarge")
parser.add_argument("--count", type=int, default=2000)
parser.add_argument("--repeat", type=int, default=2)
parser.add_argument("--binary", default="target/release/examples/load_time")
args = parser.parse_args()
channels, height, width = map(int, args.shape.split(","))
torch.set_num_threads(1)

directory = args.directory / "train" if (args.directory / "train").is_dir() else args.directory
temporary = tempfile.TemporaryDirectory()
files = sorted(p for p in directory.rglob("*") if p.suffix.lower() in {".jpg", ".jpeg", ".png"})
files = files[:: max(1, len(files) // args.count)][: args.count]
folder = pathlib.Path(temporary.name)


def place(file):
    target = folder / file.parent.name / (file.stem + ".jpg")
    target.parent.mkdir(exist_ok=True)
    if args.enlarge:
        size = tuple(map(int, args.enlarge.split("x")))
        Image.open(file).convert("RGB").resize(size, Image.Resampling.BICUBIC).save(target, quality=90)
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
    resize = v2.Resize((height, width), antialias=True)

    def __getitem__(self, index):
        path, label = self.samples[index]
        image = torchvision.io.decode_image(path, mode=torchvision.io.ImageReadMode.RGB)
        return self.resize(image).float().div_(255), label


def pytorch(data):
    loader = torch.utils.data.DataLoader(data, args.batch, num_workers=args.workers, prefetch_factor=4)
    batches = iter(loader)
    # The workers are started before the clock.
    first = next(batches)[0]
    begun, images = time.perf_counter(), 0
    for batch, _ in batches:
        images += len(batch)
    return images / (time.perf_counter() - begun)


pillow = torchvision.datasets.ImageFolder(folder, transforms.Compose([
    transforms.Resize((height, width)), transforms.ToTensor()]))
rounds = []
for _ in range(args.repeat):
    ours = striate()
    rounds.append({
        "striate_read": ours["read_per_second"],
        "striate_stream": ours["stream_per_second"],
        "torch_pillow": round(pytorch(pillow)),
        "torch_tensor": round(pytorch(Decoded(folder))),
    })
best = {name: max(r[name] for r in rounds) for name in rounds[0]}
print(json.dumps({"files": count, "to": args.shape, "workers": args.workers, "torch": torch.__version__,
                  "torchvision": torchvision.__version__, "images_per_second": best}))
