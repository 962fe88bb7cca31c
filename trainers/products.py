"""Which library multiplies float32 matrices here: measured once a machine, speed and accuracy both. Knows no network."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock

from hpo import data

LARGE = 3 << 19  # multiply-adds from which oneDNN's product is the faster one where torch's own is slow: its call costs 8 us more
CLEARLY_FASTER = 1.3  # so that noise does not choose: where torch's own is slow, oneDNN is 1.7 to 2.5 times as fast
EXACT = 1e-5  # largest error, in units of the sum's standard deviation, that still is float32's
SHAPE = (128, 784, 256)  # of the product that is timed: a batch, its columns, a layer's units
REPEATS = 15
VERSION = 1  # of what is remembered
_ONEDNN: Any = torch.backends.mkldnn  # of which torch's own types know too little


@dataclass(frozen=True, slots=True)
class Products:
    """What a float32 product does here, by torch's own choice of library and by oneDNN: GFLOP/s of one thread, and the largest error.

    Errors are of [128, 784] times [784, 256] standard normals against float64, over sqrt(784).
    """

    default_gflops: float
    onednn_gflops: float
    default_error: float
    onednn_error: float

    @property
    def prefers_onednn(self) -> bool:
        """Whether large products go to oneDNN: clearly faster here, and still float32.

        The setting that selects it allows rounding to bfloat16 (relative error 4e-3), which oneDNN makes use of on processors with
        matrix units for that; elsewhere it merely selects oneDNN's float32 product.
        """
        return self.onednn_error < EXACT and self.onednn_gflops > CLEARLY_FASTER * self.default_gflops

    def __str__(self) -> str:
        chosen = "oneDNN" if self.prefers_onednn else "torch's default"
        default = f"torch's default {self.default_gflops:.0f} GFLOP/s, error {self.default_error:.0e}"
        onednn = f"oneDNN {self.onednn_gflops:.0f} GFLOP/s, error {self.onednn_error:.0e}" if self.onednn_gflops else "no oneDNN"
        return f"large float32 products by {chosen} ({default}; {onednn}; one thread)"


@contextlib.contextmanager
def fast_arithmetic() -> Iterator[None]:
    """Within, numbers below 1e-38 count as zero, and `prefer_onednn` may choose a library; afterwards torch is what it was.

    Which library a product takes depends on the machine and its size only, so a result does not change from run to run (where what
    was measured can be kept: else it could, on a processor of which oneDNN is about 1.3 times as fast).
    """
    before = _ONEDNN.matmul.fp32_precision
    torch.set_flush_denormal(True)  # dead units leave Adam's averages there: 3-10 % slower on 1,000 images
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
        _ONEDNN.matmul.fp32_precision = before


def prefer_onednn(multiply_adds: int) -> None:
    """Choose the library for the next products; called for every one, since the switch costs 0.2 us."""
    if _onednn_is_better():
        _ONEDNN.matmul.fp32_precision = "bf16" if multiply_adds >= LARGE else "ieee"


@functools.cache
def _onednn_is_better() -> bool:
    return products().prefers_onednn


@functools.cache
def products() -> Products:
    """What was measured on this machine: by the first process that asked, while others waited, so that all choose alike."""
    file = data.cache() / f"products-{_machine()}.json"
    if (known := _remembered(file)) is not None:
        return known
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(file.with_name(f".{file.name}.lock")):
            found = _remembered(file) or probe()
            new = file.with_name(f".{file.name}.new")
            new.write_text(json.dumps(asdict(found)), encoding="utf-8")
            new.replace(file)
            return found
    except (OSError, NotImplementedError):  # a cache that cannot be written, or not locked: this process measures for itself
        return probe()


def _remembered(file: Path) -> Products | None:
    """None where there is nothing, or nothing of ours."""
    try:
        return Products(**json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def probe() -> Products:
    """Measure now, in a twentieth of a second. The best of some repeats, by turns, so that a busy machine slows both."""
    rows, columns, units = SHAPE
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(rows, columns, generator=generator), torch.randn(columns, units, generator=generator)
    exact = torch.mm(a.double(), b.double())
    threads, before = torch.get_num_threads(), _ONEDNN.matmul.fp32_precision
    ways = ("ieee", "bf16") if _ONEDNN.is_available() else ("ieee",)
    best, error = dict.fromkeys(ways, float("inf")), dict.fromkeys(ways, 0.0)
    torch.set_num_threads(1)
    try:
        for _ in range(REPEATS):
            for way in ways:
                _ONEDNN.matmul.fp32_precision = way
                found, seconds = _timed(lambda: torch.mm(a, b))
                best[way] = min(best[way], seconds)
                error[way] = float((found - exact).abs().max()) / columns**0.5
    finally:
        _ONEDNN.matmul.fp32_precision = before
        torch.set_num_threads(threads)
    speed = {way: 2e-9 * rows * columns * units / best[way] for way in ways}
    return Products(speed["ieee"], speed.get("bf16", 0.0), error["ieee"], error.get("bf16", float("inf")))


def _timed(product: Callable[[], torch.Tensor]) -> tuple[torch.Tensor, float]:
    began = time.perf_counter()
    return product(), time.perf_counter() - began


def _machine() -> str:
    """What the choice depends on: the processor, and the torch that multiplies."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines() if cpuinfo.exists() else []
    kind = [line for line in lines if line.startswith(("vendor_id", "cpu family", "model", "stepping", "flags", "Features"))]
    found = (VERSION, torch.__version__, platform.machine(), platform.processor(), sorted(set(kind)))
    return hashlib.sha256(repr(found).encode()).hexdigest()[:16]
