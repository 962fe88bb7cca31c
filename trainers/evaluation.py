"""What a network makes of examples, and how good that is, without training it. Knows no trial and no dataset."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trainers.losses import Loss
from trainers.splits import Part

EVALUATION_ROWS = 2500  # of a perceptron
EVALUATION_IMAGES = 500  # of any other net, whose layers may hold a hundred times an image: 50 MB with 32 channels of 28 x 28
EVALUATION_FLOATS = 1 << 24  # 64 MB: of sparse rows that are made dense no more at once


def evaluate(net: nn.Module, part: Part, loss: Loss) -> tuple[Tensor, Tensor | None]:
    """Loss and accuracy of `net` on these examples, scalar tensors, by large batches and without dropout."""
    return loss.measure(outputs_of(net, part), part.y)


def outputs_of(net: nn.Module, part: Part) -> Tensor:
    """What `net` makes of these examples, float32 [n, outputs], by large batches and without dropout."""
    net.eval()
    rows = max(1, min(EVALUATION_ROWS if takes_bags(net) else EVALUATION_IMAGES, EVALUATION_FLOATS // part.x.columns))
    read = part.x.batch if takes_bags(net) else part.x.dense
    return torch.cat([net(read(slice(first, first + rows))) for first in range(0, len(part), rows)])


def takes_bags(net: nn.Module) -> bool:
    """Whether bags of words reach the network as `Bags`, not as dense rows."""
    return bool(getattr(net, "takes_bags", False))
