"""Training and validation data as tensors: dense rows, or bags of words that stay sparse until a batch needs them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

CHUNK = 1 << 17  # entries of rows that are gathered at once: what a processor's cache holds
FEW = 1 << 22  # numbers of a part that a trial may have as float32 of its own: 16 MB


@dataclass(frozen=True, slots=True)
class Bags:
    """A batch of sparse rows as `torch.embedding_bag` takes them: the columns of all, where each row starts, the weights.

    columns int32 or int64 [m], starts of the same type [n], weights float32 [m] or None (all one). `rows` int64 [m] is the
    row of each entry, where a gradient is going to ask for it.
    """

    columns: Tensor
    starts: Tensor
    weights: Tensor | None
    rows: Tensor | None = None

    def __len__(self) -> int:
        return len(self.starts)

    def matmul(self, weight: Tensor) -> Tensor:
        """The rows times `weight` [columns, outputs], float32 [n, outputs]."""
        sums: Tensor = torch.embedding_bag(weight, self.columns, self.starts, per_sample_weights=self.weights)[0]
        return sums

    def numbers(self) -> Tensor:
        """The row of each entry, int64 [m]."""
        if self.rows is not None:
            return self.rows
        lengths = torch.diff(self.starts, append=self.starts.new_full((1,), len(self.columns)))
        return torch.repeat_interleave(torch.arange(len(self), device=lengths.device), lengths, output_size=len(self.columns))

    def dense(self, columns: int) -> Tensor:
        """Float32 [n, columns]."""
        x = torch.zeros(len(self), columns, device=self.starts.device)
        x[self.numbers(), self.columns.long()] = 1.0 if self.weights is None else self.weights
        return x

    def transposed_matmul(self, delta: Tensor, out: Tensor) -> Tensor:
        """The transposed rows times `delta` [n, outputs], written to `out` [columns, outputs], which is returned."""
        entries = delta.index_select(0, self.numbers())
        if self.weights is not None:
            entries.mul_(self.weights.unsqueeze(1))
        # with int32 indices index_add_ takes five times as long
        return out.zero_().index_add_(0, self.columns.long(), entries)


@dataclass(frozen=True, slots=True)
class DenseRows:
    """Rows `values` [n, columns], uint8 or float32, of which models see `values * scale` as float32."""

    values: Tensor
    scale: float = 1.0

    def __len__(self) -> int:
        return len(self.values)

    @property
    def columns(self) -> int:
        return self.values.shape[1]

    def batch(self, rows: Tensor | slice) -> Tensor:
        """Float32 [n, columns]: the rows with these numbers (int64 [n]), or in this slice."""
        x = (self.values[rows] if isinstance(rows, slice) else self.values.index_select(0, rows)).float()
        if self.scale == 1.0:
            return x
        return x * self.scale if isinstance(rows, slice) else x.mul_(self.scale)  # a slice of floats is the shared memory itself

    def batches(self, order: Tensor, size: int) -> Iterator[Tensor]:
        """The rows in this order (int64 [n]), `size` at a time, the last the rest, in new memory; gathered for many batches at once."""
        for chunk in torch.split(order, size * max(1, CHUNK // (size * self.columns))):
            yield from torch.unsafe_split(self.batch(chunk), size)  # as no views, so that a module may write into them under autograd

    def ready(self) -> Self:
        """The same rows; where they are few, converted once instead of with every batch."""
        is_ready = self.values.is_floating_point() and self.scale == 1.0
        if is_ready or self.values.numel() > FEW:
            return self
        return replace(self, values=self.batch(slice(None)), scale=1.0)

    def dense(self, rows: Tensor | slice) -> Tensor:
        """The same as `batch`, always in new memory: a module may write into its inputs."""
        x = self.batch(rows)
        return x.clone() if x.untyped_storage().data_ptr() == self.values.untyped_storage().data_ptr() else x

    def part(self, first: int, last: int) -> Self:
        """The rows `first` to `last - 1`, in the same memory."""
        return replace(self, values=self.values[first:last])

    def to(self, device: str) -> Self:
        return replace(self, values=self.values.to(device))


@dataclass(frozen=True, slots=True)
class SparseRows:
    """Rows of counts in compressed form: row i has the columns `indices[starts[i]:starts[i + 1]]`.

    starts int64 [n + 1], indices int32 [m], counts uint8 [m] or None (all one); `columns` is the width.
    """

    starts: Tensor
    indices: Tensor
    counts: Tensor | None
    columns: int

    def __len__(self) -> int:
        return len(self.starts) - 1

    def batch(self, rows: Tensor | slice) -> Bags:
        """The rows with these numbers (int64 [n]), or in this slice (of step 1), still sparse."""
        if isinstance(rows, slice):
            return self._slice(*rows.indices(len(self))[:2])
        return self._gathered(rows, len(rows))

    def _gathered(self, rows: Tensor, size: int) -> Bags:
        """The rows with these numbers, of which each `size` count theirs from 0: `Bags.rows` are rows of a batch."""
        first = self.starts.index_select(0, rows)
        lengths = self.starts.index_select(0, rows + 1).sub_(first)
        ends = lengths.cumsum(0)
        entries = int(ends[-1]) if len(ends) else 0
        starts = ends - lengths
        count = torch.arange(len(rows), device=ends.device).remainder_(max(1, size))
        of_batch, places = (torch.repeat_interleave(number, lengths, output_size=entries) for number in (count, first - starts))
        places.add_(torch.arange(entries, device=ends.device))
        counts = None if self.counts is None else self.counts.index_select(0, places).float()
        return Bags(self.indices.index_select(0, places).long(), starts, counts, of_batch)

    def _slice(self, first: int, last: int) -> Bags:
        starts = self.starts[first : max(first, last) + 1]
        here = slice(int(starts[0]), int(starts[-1]))
        counts = None if self.counts is None else self.counts[here].float()
        return Bags(self.indices[here], (starts[:-1] - starts[0]).to(torch.int32), counts)

    def batches(self, order: Tensor, size: int) -> Iterator[Bags]:
        """The rows in this order (int64 [n]), `size` at a time, the last the rest; gathered for many batches at once."""
        mean = int(self.starts[-1] - self.starts[0]) / max(1, len(self))
        for chunk in torch.split(order, size * max(1, int(CHUNK / (size * max(1.0, mean))))):
            yield from _cut(self._gathered(chunk, size), size)

    def ready(self) -> Self:
        """The same rows."""
        return self

    def dense(self, rows: Tensor | slice) -> Tensor:
        """Float32 [n, columns]."""
        return self.batch(rows).dense(self.columns)

    def part(self, first: int, last: int) -> Self:
        """The rows `first` to `last - 1`, in the same memory."""
        return replace(self, starts=self.starts[first : last + 1])

    def to(self, device: str) -> Self:
        counts = None if self.counts is None else self.counts.to(device)
        return replace(self, starts=self.starts.to(device), indices=self.indices.to(device), counts=counts)


def _cut(bags: Bags, size: int) -> Iterator[Bags]:
    """Bags of `size` rows each, the last of the rest, in the same memory."""
    first = bags.starts[::size]
    starts = torch.split(bags.starts - first.repeat_interleave(size)[: len(bags)], size)
    lengths = torch.diff(first, append=first.new_full((1,), len(bags.columns))).tolist()
    weights = [None] * len(lengths) if bags.weights is None else torch.split(bags.weights, lengths)
    return map(Bags, torch.split(bags.columns, lengths), starts, weights, torch.split(bags.numbers(), lengths))


Rows = DenseRows | SparseRows


@dataclass(frozen=True, slots=True)
class Part:
    """Examples of one part of a split: inputs `x`, and labels int64 [n] or values float32 [n, outputs] `y`."""

    x: Rows
    y: Tensor

    def __len__(self) -> int:
        return len(self.x)


@dataclass(frozen=True, slots=True)
class Split:
    """What a trial learns from and is judged by; mapped from a shared file, so do not write.

    `outputs` counts the classes (labels are 0..outputs-1) or, where `y` holds values, these. `image` is (channels,
    height, width) where a row is one; `flips` says that a mirror image keeps its class.
    """

    train: Part
    val: Part
    outputs: int
    image: tuple[int, int, int] | None = None
    flips: bool = False

    @property
    def columns(self) -> int:
        return self.train.x.columns

    @property
    def classifies(self) -> bool:
        """Whether `y` are labels, not values."""
        return not self.train.y.is_floating_point()
