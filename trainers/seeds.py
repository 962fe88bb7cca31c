"""Seeds that depend on all that they are made of, and torch's global generators set to one for a while."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def seeded(seed: int, device: str = "cpu") -> Iterator[None]:
    """Within, torch's global generators of the CPU and of `device` begin at this seed; afterwards they are what they were."""
    gpus = [torch.device(device).index or 0] if torch.device(device).type == "cuda" else []
    with torch.random.fork_rng(devices=gpus):
        for generator in (torch.default_generator, *(torch.cuda.default_generators[gpu] for gpu in gpus)):
            generator.manual_seed(seed)
        yield


def seed_of(*parts: object) -> int:
    """32 bits that depend on all parts: torch's generator for the CPU ignores what a seed has beyond."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:4], "big")
