"""The charts of a study, as PNG and SVG files. Imported only when something is drawn: matplotlib takes half a second."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from hpo.pictures import against, curves, importance, parallel, progress, style, time
from hpo.pictures.picture import Drawn, Picture
from hpo.results import StoredStudy

__all__ = ["CHARTS", "Picture", "draw"]

Chart = Callable[[StoredStudy], Drawn | str]
CHARTS: dict[str, tuple[str, Chart]] = {
    "progress": (progress.TITLE, progress.chart),
    "curves": (curves.TITLE, curves.chart),
    "parallel": (parallel.TITLE, parallel.chart),
    "against": (against.TITLE, against.chart),
    "importance": (importance.TITLE, importance.chart),
    "time": (time.TITLE, time.chart),
}


def draw(study: StoredStudy, folder: Path) -> list[Picture]:
    """Draw every chart of the study into `folder`, as NAME.png and NAME.svg, in the order of a report.

    A chart that a study has nothing for is in the list, too, and says why.
    The same study gives the same bytes with the same version of matplotlib.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with style.look():
        return [_drawn(study, folder, name, title, chart) for name, (title, chart) in CHARTS.items()]


def _drawn(study: StoredStudy, folder: Path, name: str, title: str, chart: Chart) -> Picture:
    found, png, svg = chart(study), folder / f"{name}.png", folder / f"{name}.svg"
    if isinstance(found, str):
        for stale in (png, svg):  # of an earlier report into the same folder
            stale.unlink(missing_ok=True)
        return Picture(name, title, "", lacking=found)
    if layout := found.figure.get_layout_engine():
        layout.execute(found.figure)
        found.figure.set_layout_engine(None)  # it has done its work: while there is one, each file is drawn twice
    found.figure.savefig(png, dpi=style.DPI)
    found.figure.savefig(svg, dpi=style.SVG_DPI, metadata={"Date": None})
    return Picture(name, title, found.caption, png, svg)
