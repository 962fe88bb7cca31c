"""`python -m benchmarks.peers [NAME ...]`: makes the environments of these peers, or of all."""

from __future__ import annotations

import argparse
import sys

from benchmarks.peers.environments import PEERS, PeerMissing, made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", choices=[[], *PEERS], metavar="NAME", help=f"of {', '.join(PEERS)} (all)")
    missing = 0
    for name in parser.parse_args().names or PEERS:
        try:
            print(f"{name:10} {made(PEERS[name]).folder}")
        except PeerMissing as error:
            print(error)
            missing = 1
    sys.exit(missing)


if __name__ == "__main__":
    main()
