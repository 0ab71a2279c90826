"""How long `radtransfer --help` takes, as a ratio to an interpreter that does nothing: `python benchmarks/startup.py`."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

ROUNDS = 15
HELP = (sys.executable, "-m", "pipelines", "--help")
NOTHING = (sys.executable, "-c", "pass")


def seconds(command: tuple[str, ...]) -> float:
    start = time.perf_counter()
    subprocess.run(command, capture_output=True, check=True)
    return time.perf_counter() - start


def main() -> None:
    seconds(HELP)
    pairs = [(seconds(NOTHING), seconds(HELP)) for _ in range(ROUNDS)]
    nothing, answer = (statistics.median(column) for column in zip(*pairs, strict=True))
    print(f"python -c pass       {nothing:.3f} s (median of {ROUNDS})")
    print(f"radtransfer --help   {answer:.3f} s, {answer / nothing:.1f} times as long")


if __name__ == "__main__":
    main()
