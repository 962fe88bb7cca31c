"""How long the light commands take: medians of whole processes.  python -m benchmarks.startup [--runs 15]"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

HPO = str(Path(sys.executable).parent / "hpo")
COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "hpo --help": [HPO, "--help"],
    "hpo validate search_spaces/fashion.yaml": [HPO, "validate", "search_spaces/fashion.yaml"],
    "hpo plan search_spaces/fashion.yaml": [HPO, "plan", "search_spaces/fashion.yaml"],
}


def milliseconds(command: list[str]) -> float:
    """Wall time of one run."""
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return 1000 * (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=15)
    runs = parser.parse_args().runs
    for name, command in COMMANDS.items():
        milliseconds(command)
        times = sorted(milliseconds(command) for _ in range(runs))
        print(f"{name:42} median {statistics.median(times):4.0f} ms   ({times[0]:.0f} to {times[-1]:.0f})")


if __name__ == "__main__":
    main()
