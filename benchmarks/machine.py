"""The machine, in words, and how fast one of its cores multiplies matrices in float32 here, by the path that the trainers take."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from trainers.products import Products, products

SIZE, SECONDS = 1024, 1.0


@dataclass(frozen=True)
class Machine:
    """Its processor, the cores that may be used, a core's speed by torch's default path and mkldnn's bf16 one, the trainers' choice."""

    processor: str
    cores: int
    default_gflops: float
    bf16_gflops: float
    products: Products

    @property
    def gflops(self) -> float:
        """By the path that the trainers take: on a processor with matrix units for bfloat16, the bf16 one is not float32's."""
        return self.bf16_gflops if self.products.prefers_onednn else self.default_gflops

    def __str__(self) -> str:
        return (
            f"{self.processor}, {self.cores} cores, torch {torch.__version__}; a core multiplies {SIZE} x {SIZE} float32 matrices at "
            f"{self.default_gflops:.0f} GFLOP/s by default, {self.bf16_gflops:.0f} with mkldnn.matmul.fp32_precision = bf16\n"
            f"the trainers: {self.products}"
        )


def measured() -> Machine:
    """Takes some seconds; leaves torch as it was, but for its threads: one."""
    torch.set_num_threads(1)
    default = _gflops()
    with _precision("bf16"):
        bf16 = _gflops()
    return Machine(_processor(), len(os.sched_getaffinity(0)), default, bf16, products())


@contextmanager
def _precision(name: str) -> Iterator[None]:
    """The path of float32 products until the block ends."""
    paths: Any = torch.backends.mkldnn
    before = paths.matmul.fp32_precision
    paths.matmul.fp32_precision = name
    try:
        yield
    finally:
        paths.matmul.fp32_precision = before


def _gflops() -> float:
    """The best of the multiplications that a second has time for: others at work on the machine make it slower, nothing faster."""
    a, b, c = (torch.randn(SIZE, SIZE) for _ in range(3))
    best, over = float("inf"), time.perf_counter() + SECONDS
    while (began := time.perf_counter()) < over:
        torch.mm(a, b, out=c)
        best = min(best, time.perf_counter() - began)
    return 2 * SIZE**3 / best / 1e9


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown processor")
