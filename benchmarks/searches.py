"""Whole searches beside the peers: the same configurations, examples and cores, in one run, each peer in an environment of its own.

    python -m benchmarks.searches [--only small,full] [--peers plain,tight] [--repeats 3] [--quick]

Each side is a whole process, from the command to its end, in turn, and every repeat has other configurations. A side's own pruner
decides how many epochs each of them gets. Ours runs without finals (no peer has any), stopper, schedule and label smoothing.

    wall         seconds of the whole command
    train share  of the cores' time between the first and the last report, what was spent inside epochs (training and validation)
    speed        of what the cores could multiply in the wall of the command by the float32 path that the trainers take (oneDNN's
                 where it is clearly faster and as exact: trainers/products.py), what training needed
    memory       peak of all processes of the command together, proportional set size, looked at once a second

Ratios are ours / peer, so less is better: the median of the repeats (lowest to highest).
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from benchmarks import machine
from benchmarks.commands import CommandFailed
from benchmarks.figures import Search, ratios, spread
from benchmarks.machine import Machine
from benchmarks.peers.environments import PEERS, PeerMissing, made
from benchmarks.peers.task import Kind
from benchmarks.rows import ROWS, Row, configurations
from benchmarks.sides import Bench, decoded, ours, peer
from hpo.data import DataError

HEAD = "  seed side        wall   trials  epochs  ms/epoch  ns/1,000 multiply-adds  epochs/s  train share  speed   memory    best"


def line(search: Search, seed: int, on: Machine) -> str:
    """One side of one repeat."""
    speed = search.speed_share(on.cores, on.gflops)
    return (
        f"  {seed:4} {search.side:9} {search.wall_s:6.1f} s {search.trials:7} {search.epochs:7} {search.ms_per_epoch:9.1f} "
        f"{search.ns_per_work:23.3f} {search.epochs / search.wall_s:9.2f} {search.training_share(on.cores):12.2f} {speed:6.1%} "
        f"{search.peak_mb:5.0f} MB  {search.best:.4f}"
    )


def repeat(bench: Bench, peers: Sequence[str], peer_trials: int | None, on: Machine) -> dict[str, Search]:
    """Every side once, ours first, because the floor trains what ours did; a peer that fails is left out, and says why."""
    searches = {"ours": ours(bench)}
    print(line(searches["ours"], bench.seed, on), flush=True)
    for name in peers:
        try:
            searches[name] = peer(name, bench, searches["ours"], peer_trials)
        except CommandFailed as error:
            print(f"  {bench.seed:4} {name:9} left out: {error}", flush=True)
            continue
        print(line(searches[name], bench.seed, on), flush=True)
    return searches


def summary(row: Row, repeats: Sequence[dict[str, Search]], peers: Sequence[str], cores: int) -> None:
    """Prints the ratios beside their aims."""
    mine = [searches["ours"] for searches in repeats]
    for name in peers:
        pairs = [(searches["ours"], searches[name]) for searches in repeats if name in searches]
        for measure in row.measures if pairs else ():
            aim = row.aims.get((name, measure))
            print(f"  {measure}, ours / {name}: {ratios(measure, pairs)}" + (f"   aim: at most {aim:.3g}" if aim else ""))
    if row.kind == Kind.NOTHING:
        return
    aim_of_share = f"   aim: at least {row.share}" if row.share else ""
    print(f"  train share, ours: {spread([search.training_share(cores) for search in mine])}{aim_of_share}")
    for name in (name for name in peers if any(name in searches for searches in repeats)):
        there = [searches[name] for searches in repeats if name in searches]
        gap = statistics.median(searches["ours"].best - searches[name].best for searches in repeats if name in searches)
        print(f"  train share, {name}: {spread([search.training_share(cores) for search in there])}; best value, ours - {name}: {gap:+.4f}")


def compare(row: Row, peers: Sequence[str], options: argparse.Namespace, on: Machine) -> None:
    """All repeats of a row."""
    print(f"\n{row.name}: {row.trials} trials of at most {row.max_epochs} epochs, {row.says}", flush=True)
    peer_trials = min(options.peer_trials, row.trials) if row.kind == Kind.NOTHING else None
    if peer_trials is not None and peer_trials < row.trials:
        print(
            f"  the peer runs {peer_trials} trials; its time from the first to the last report is scaled to {row.trials}, "
            "its start and its end are counted once"
        )
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        file, repeats = Path(folder) / "examples.npz", []
        workload = decoded(row, file)
        print(HEAD)
        for seed in range(options.seed, options.seed + options.repeats):
            points = configurations(row.space(), row.trials, seed)
            repeats.append(repeat(Bench(row, str(file), workload, points, seed, on.cores), peers, peer_trials, on))
    summary(row, repeats, peers, on.cores)


def installed(names: Sequence[str]) -> list[str]:
    """Those of the peers that can be; the others say why not."""
    found = []
    for name in names:
        try:
            found.append(made(PEERS[name]).name)
        except PeerMissing as error:
            print(f"left out: {error}", flush=True)
    return found


def several(known: Collection[str]) -> Callable[[str], list[str]]:
    """How an option that names several of `known`, separated by commas, is read."""

    def names(text: str) -> list[str]:
        chosen = text.split(",")
        if unknown := set(chosen) - set(known):
            raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}: choose among {', '.join(known)}")
        return chosen

    return names


def positive(text: str) -> int:
    """How an option that counts is read."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text}: give a whole number from 1 on")
    return int(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=several(ROWS), default=list(ROWS), help=f"rows, of {','.join(ROWS)}")
    parser.add_argument("--peers", type=several(PEERS), default=list(PEERS), help=f"of {','.join(PEERS)}")
    parser.add_argument("--repeats", type=positive, default=3)
    parser.add_argument("--seed", type=int, default=0, help="of the first repeat; the next one has the next")
    parser.add_argument("--peer-trials", type=positive, default=100, help="of the row `nothing`, for the peer (a second each)")
    parser.add_argument("--quick", action="store_true", help="one repeat of few, short trials: does it work?")
    options = parser.parse_args()
    if options.quick:
        print("--quick: few, short trials on few examples, mostly start-up; these figures and ratios mean nothing")
        options.repeats, options.peer_trials = 1, min(options.peer_trials, 5)
    rows = [ROWS[name].small() if options.quick else ROWS[name] for name in options.only]
    there = installed([name for name in PEERS if name in options.peers and any(name in row.peers for row in rows)])
    for name in there:
        print(f"{name:10} {PEERS[name].says}")
    on = machine.measured()
    print(on, flush=True)
    for row in rows:
        try:
            compare(row, [name for name in row.peers if name in there], options, on)
        except (CommandFailed, DataError) as error:
            print(f"  left out: {error}", flush=True)


if __name__ == "__main__":
    main()
