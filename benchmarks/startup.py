"""How long the light commands take: medians of whole processes.  python -m benchmarks.startup [--runs 15]"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HPO = str(Path(sys.executable).parent / "hpo")
BAD = """
name: ../fashion
trainer: {name: image-mpl, settings: {max_epoch: 27, batch_size: none, width: 1e9}}
objective: {metric: val_acuracy, direction: up}
space:
  learning_rate: {type: float, low: 0, high: 1e-1, log: true, grid: [3]}
  width: {type: int, low: 1024, high: 32}
  dropuot: {type: float, low: 0.0, high: .nan}
sampler: {name: tpee}
pruner: {name: asha, reduction_factor: 1}
budget: {trials: "40", time: 30}
sede: 0
"""
COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "hpo --help": [HPO, "--help"],
    "hpo validate search_spaces/fashion.yaml": [HPO, "validate", "search_spaces/fashion.yaml"],
    "hpo plan search_spaces/fashion.yaml": [HPO, "plan", "search_spaces/fashion.yaml"],
}


def milliseconds(command: list[str]) -> float:
    """Wall time of one run."""
    began = time.perf_counter()
    done = subprocess.run(command, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    if done.returncode not in (0, 2):
        raise RuntimeError(f"{command} ended with {done.returncode}")
    return 1000 * (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=15)
    runs = parser.parse_args().runs
    bad = Path(tempfile.mkdtemp()) / "bad.yaml"
    bad.write_text(BAD, encoding="utf-8")
    for name, command in {**COMMANDS, "hpo validate (a bad file)": [HPO, "validate", str(bad)]}.items():
        milliseconds(command)
        times = sorted(milliseconds(command) for _ in range(runs))
        print(f"{name:42} median {statistics.median(times):4.0f} ms   ({times[0]:.0f} to {times[-1]:.0f})")


if __name__ == "__main__":
    main()
