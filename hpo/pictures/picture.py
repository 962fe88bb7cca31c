"""What a chart hands over, and what becomes of it as files. Nouns only: no matplotlib until a figure is drawn."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, slots=True)
class Drawn:
    """A chart that could be drawn, and one sentence about what it shows."""

    figure: Figure
    caption: str


@dataclass(frozen=True, slots=True)
class Picture:
    """A chart as files: `png` and `svg`, or None, and then `lacking` says why it could not be drawn."""

    name: str
    title: str
    caption: str
    png: Path | None = None
    svg: Path | None = None
    lacking: str = ""
