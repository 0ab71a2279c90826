"""What the fold of the first convolution saves: `python benchmarks/first_layer.py`.

Each network runs on a batch with its first layer folded, one channel in, and as published, three equal channels in, in turns;
the ratio of the shortest times is what matters, since the machine's load only adds to both. `--write` keeps the table.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from pipelines.models.backbones import Network, build, resolve
from pipelines.models.device import choose_device
from pipelines.models.provenance import Normalisation

IMAGENET = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
FEW = 4
NAMES = ("resnet18", "efficientnet_b0", "mobilenet_v2", "densenet121", "vit_b16")
NOTE = """# The first convolution, folded

`python benchmarks/first_layer.py --write`: time of one pass over a batch with the first convolution folded to one channel, as a
ratio to that with three equal channels: shortest of several rounds in turns, images of {size} × {size}, float32. "Layer" is the
first convolution with its normalisation alone, on {batch} images; "network" is all of it, on {few}. Below 1 the fold is faster.
The first
layers of `resnet18` and `densenet121` are alike, and so are those of `efficientnet_b0` and `mobilenet_v2`: what differs between
their rows is the load of a shared machine.

| network | layer, inference | layer, training | network, inference | network, training |
|---|---|---|---|---|
{rows}

Measured on {device}, {threads} thread(s). The fold computes the same (to 1e-5, edges included) from the same weights, so it is
always on where a network's first layer is a plain convolution. The layer gains; a deep network, of which it is a few percent,
hardly does.
"""


def once(run: Callable[[Tensor], Tensor], images: Tensor, learn: bool) -> float:
    synchronise(images.device)
    start = time.perf_counter()
    with torch.set_grad_enabled(learn):
        answer = run(images)
    if learn:
        answer.sum().backward()
    synchronise(images.device)
    return time.perf_counter() - start


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def ratio(run: Callable[[Tensor], Tensor], images: Tensor, learn: bool, rounds: int) -> float:
    """Folded over published: the same module takes one channel or three."""
    three = images.expand(-1, 3, -1, -1)
    for given in (images, three):
        once(run, given, learn)
    pairs = [(once(run, images, learn), once(run, three, learn)) for _ in range(rounds)]
    one, published = (min(column) for column in zip(*pairs, strict=True))
    return one / published


def measured(name: str, images: Tensor, rounds: int) -> list[float]:
    network: Network = build(name, outputs=1, dropout=0.0, normalisation=IMAGENET).to(images.device)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    first = network.trunk.get_submodule(str(resolve(name).first))
    network.eval()
    runs = ((first, images, 8 * rounds), (network, images[:FEW], rounds))
    return [ratio(run, given, learn, times) for run, given, times in runs for learn in (False, True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args()
    device = choose_device(asked.device)
    images = torch.rand(asked.batch, 1, asked.size, asked.size, device=device)
    rows = []
    for name in NAMES:
        found = measured(name, images, asked.rounds)
        rows.append(f"| `{name}` | " + " | ".join(f"{value:.2f}" for value in found) + " |")
        print(rows[-1], flush=True)
    if asked.write:
        described = torch.cuda.get_device_name() if device.type == "cuda" else "a CPU"
        text = NOTE.format(
            few=FEW,
            batch=asked.batch,
            size=asked.size,
            rows="\n".join(rows),
            device=described,
            threads=torch.get_num_threads(),
        )
        Path(__file__).with_suffix(".md").write_text(text)


if __name__ == "__main__":
    main()
