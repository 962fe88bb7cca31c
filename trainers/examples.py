"""A decoded dataset as NumPy arrays: what decoders give and the cache keeps. Knows no files and no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Csr:
    """Rows of small counts, nearly all of them zero (compressed sparse rows), as bags of words are.

    Row i has the columns `columns[starts[i]:starts[i + 1]]`, ascending and each once, with the counts of the same
    place; `counts` None says that all are one. `width` is the number of columns.
    """

    starts: NDArray[np.int64]
    columns: NDArray[np.int32]
    counts: NDArray[np.uint8] | None
    width: int

    def __len__(self) -> int:
        return len(self.starts) - 1


@dataclass(frozen=True, slots=True)
class Examples:
    """Inputs `x` [n, columns] (uint8 or float32, or sparse) and `y`: labels int64 [n], or values float32 [n, outputs].

    `outputs` counts the classes (labels are 0..outputs-1) or the values. The last `val` examples validate, those before
    them train. `x * scale` is what a model sees. `image` is (channels, height, width) where a row is one, and `flips`
    says that its mirror image is of the same class.
    """

    x: NDArray[Any] | Csr
    y: NDArray[np.int64] | NDArray[np.float32]
    outputs: int
    val: int = 0
    scale: float = 1.0
    image: tuple[int, int, int] | None = None
    flips: bool = False

    @property
    def columns(self) -> int:
        return self.x.width if isinstance(self.x, Csr) else int(self.x.shape[1])
