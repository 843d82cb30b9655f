"""Peak resident memory of training steps, ours and PyTorch's: each in a process of its own. See README.md.

python benches/peers/memory.py [CASE] [BATCH]
"""

import os
import pathlib
import subprocess
import sys

from built import built

CHILD = """
import sys, torch
from torch import nn
sys.path.insert(0, {here!r})
import large
torch.set_num_threads(2)
case, batch, layout, implementation = {case!r}, {batch}, {layout!r}, {implementation!r}
build = {{"alexnet-torchvision": large.torchvision.models.alexnet, "alexnet": large.published_alexnet,
          "vgg11": large.torchvision.models.vgg11, "resnet18": large.torchvision.models.resnet18}}[case]
layout = getattr(torch, layout)
net = build().to(memory_format=layout)
side = 227 if case == "alexnet" else 224
x, t = torch.rand(batch, 3, side, side).to(memory_format=layout), torch.randint(0, 1000, (batch,))
optimizer = torch.optim.SGD(net.parameters(), lr=0.001, momentum=0.9, **{{implementation: True}})
for _ in range(3):
    optimizer.zero_grad(set_to_none=True)
    nn.functional.cross_entropy(net(x), t).backward()
    optimizer.step()
"""


def peak_mib(command):
    """Peak resident memory of a command, in MiB, base of its process included."""
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        raise RuntimeError(f"{command[:2]} failed")
    return usage.ru_maxrss / 1024


def main():
    case = sys.argv[1] if len(sys.argv) > 1 else "alexnet-torchvision"
    batch = int(sys.argv[2]) if len(sys.argv) > 2 else 32
    here = str(pathlib.Path(__file__).resolve().parent)
    print(f"{case}, training at batch {batch}: peak resident memory, MiB")
    ours = peak_mib([built("examples/step_time"), 2, 0.01, f"{case}: training", batch])
    print(f"striate                      {ours:8.0f}")
    print(f"import torch, torchvision    {peak_mib([sys.executable, '-c', 'import torch, torchvision']):8.0f}")
    for layout in ("contiguous_format", "channels_last"):
        for implementation in ("fused", "foreach"):
            script = CHILD.format(here=here, case=case, batch=batch, layout=layout, implementation=implementation)
            theirs = peak_mib([sys.executable, "-c", script])
            print(f"PyTorch {layout:<17} {implementation:<7}{theirs:8.0f}  {theirs / ours:.2f}", flush=True)


if __name__ == "__main__":
    main()
