"""What keeping freed memory saves a training on the CPU: `python benchmarks/memory.py [--write]`.

Each round trains the same network on the same batches in two fresh processes, one with `keep_memory` and one without; the
ratio of the processor times (medians over rounds) is what matters. Peak memory and page faults stand beside it.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

WARM = 2  # steps before the clock starts
NAMES = {"mobilenet_v2": 16, "resnet18": 16}  # and images in a batch of 224 pixels
NOTE = """# Memory that a training keeps

`python benchmarks/memory.py --write`: processor time of training steps on the CPU (one thread, 224 pixels, fp32), with freed
memory kept (`pipelines.processes.keep_memory`, on in every training on the CPU) as a ratio to that with the C library's
defaults. Medians of {rounds} rounds in turns of {steps} steps each; below 1 it is faster to keep it.

| network | time | page faults | peak memory |
|---|---|---|---|
{rows}
"""


def steps(name: str, kept: bool, count: int) -> dict[str, float]:
    """In this process: seconds of a step, page faults of it, and the peak of memory in MB."""
    import torch

    from pipelines.models.backbones import build
    from pipelines.models.provenance import Normalisation
    from pipelines.processes import keep_memory
    from pipelines.training.learn import place

    if kept:
        keep_memory()
    torch.set_num_threads(1)
    network = build(name, outputs=1, dropout=0.0, normalisation=Normalisation((0.5,) * 3, (0.25,) * 3))
    network = place(network, torch.device("cpu")).train()
    images, seconds, faults = torch.rand(NAMES[name], 1, 224, 224), [], []
    for _ in range(WARM + count):
        began, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        network(images).sum().backward()
        seconds.append(time.process_time() - began)
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": median(seconds[WARM:]), "faults": median(faults[WARM:]), "peak": peak}


def measured(name: str, kept: bool, count: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--steps", str(count), "--inside", name, *(["--kept"] if kept else [])]
    found: dict[str, float] = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--inside", choices=list(NAMES), help=argparse.SUPPRESS)
    parser.add_argument("--kept", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.inside:
        print(json.dumps(steps(arguments.inside, arguments.kept, arguments.steps)))
        return
    rows = []
    for name in NAMES:
        pairs = [[measured(name, kept, arguments.steps) for kept in (True, False)] for _ in range(arguments.rounds)]
        ratio = median(kept["seconds"] / given["seconds"] for kept, given in pairs)
        faults = [median(pair[side]["faults"] for pair in pairs) for side in (0, 1)]
        peaks = [median(pair[side]["peak"] for pair in pairs) for side in (0, 1)]
        row = f"| `{name}` | {ratio:.2f} | {faults[0]:,.0f} instead of {faults[1]:,.0f} | {peaks[0] / peaks[1]:.2f} |"
        print(row, flush=True)
        rows.append(row)
    if arguments.write:
        text = NOTE.format(rounds=arguments.rounds, steps=arguments.steps, rows="\n".join(rows))
        (Path(__file__).parent / "memory.md").write_text(text)


if __name__ == "__main__":
    main()
