"""What a person does on MLflow's pages (3.17), in words; only what can be seen there is used to find things."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from playwright.sync_api import Locator, Page, expect

# what the plot was given: Plotly draws on a canvas, in which nobody can count lines
DIMENSIONS = "plot => plot.data[0].dimensions.map(axis => [axis.label, Array.from(axis.values), Array.from(axis.ticktext ?? [])])"

# the charts beside the runs are drawn with a canvas's own lines: count those since it was wiped last, by its class
COUNTING = """
window.lines = {};
const {stroke, clearRect} = CanvasRenderingContext2D.prototype;
CanvasRenderingContext2D.prototype.stroke = function (...path) {
  window.lines[this.canvas.className] = (window.lines[this.canvas.className] ?? 0) + 1;
  return stroke.apply(this, path);
};
CanvasRenderingContext2D.prototype.clearRect = function (...box) {
  window.lines[this.canvas.className] = 0;
  return clearRect.apply(this, box);
};
"""


def exactly(text: str) -> re.Pattern[str]:
    """Matches `text` and nothing longer."""
    return re.compile(f"^{re.escape(text)}$")


@dataclass(frozen=True, slots=True)
class Axis:
    """An axis of a parallel-coordinates plot: a value for each line, and the words of an axis that has no numbers."""

    label: str
    values: Sequence[float]
    words: Sequence[str]


@dataclass(frozen=True, slots=True)
class Mlflow:
    """MLflow's pages in a browser; `shots` is the folder for screenshots."""

    page: Page
    shots: Path

    @classmethod
    def start(cls, page: Page, address: str, shots: Path) -> Self:
        """The start page, in the part for training models, without what it advertises."""
        page.add_init_script(COUNTING)
        page.goto(address)
        page.get_by_role("button", name="Model training").click()
        page.get_by_role("button", name="Close", exact=True).last.click()  # the assistant
        page.get_by_role("button", name="Toggle sidebar").click()  # room for columns
        shots.mkdir(parents=True, exist_ok=True)
        return cls(page, shots)

    def shoot(self, name: str) -> None:
        """Keep a picture of the whole page."""
        self.page.mouse.move(5, 450)
        self.page.screenshot(path=self.shots / f"{name}.png", full_page=True, animations="disabled")

    def open_experiment(self, name: str) -> None:
        """From the list of experiments to an experiment's runs."""
        self.page.get_by_role("link", name="View all").click()
        self.page.get_by_role("link", name=name, exact=True).click()
        expect(self.page.get_by_role("heading", name="Runs")).to_be_visible()

    def row(self, name: str) -> Locator:
        """The row of a run in the table, by its name; the table has its left part and its right in two elements."""
        link = self.page.get_by_role("link", name=name, exact=True)
        return self.page.get_by_role("row").filter(has=link)

    def expand(self, study: str) -> None:
        """Show the nested runs of a study."""
        self.row(study).get_by_role("button").click()

    def names(self) -> Locator:
        """The names of the runs in the table."""
        return self.page.locator('[role="gridcell"][col-id="attributes.`Run Name`"]').get_by_role("link")

    def top(self) -> Locator:
        """The name in the table's uppermost row; the page holds the rows in the order in which they came, whatever it is sorted by."""
        return self.page.locator('[row-index="0"] [col-id="attributes.`Run Name`"]').get_by_role("link")

    def cell(self, run: str, column: str) -> Locator:
        """What the table says of a run in a column."""
        number = self.row(run).get_attribute("row-id")
        return self.page.locator(f'[row-id="{number}"] [col-id="{column}"]')

    def choose_columns(self, *names: str) -> None:
        """Show columns that are hidden, hide columns that are shown; of two of one name the parameter."""
        self.page.get_by_role("button", name="Columns", exact=True).click()
        for name in names:
            self.page.get_by_placeholder("Search columns").fill(name)
            self.page.get_by_test_id("column-selector-tree").locator("span[title]").filter(has_text=exactly(name)).last.click()
        self.page.keyboard.press("Escape")
        expect(self.page.get_by_placeholder("Search columns")).to_be_hidden()

    def open_view(self, name: str) -> None:
        """Take one of the experiment's saved views."""
        self.page.get_by_test_id("saved-views-trigger").click()
        self.page.get_by_role("menuitem", name=name).click()

    def show_charts(self) -> None:
        """From the table of the runs to their charts."""
        self.page.locator("label").filter(has=self.page.locator('input[value="CHART"]')).click()

    def wait_for_lines(self, count: int) -> None:
        """Until the parallel coordinates beside the runs have so many lines."""
        self.page.wait_for_function("count => window.lines.foreground === count", arg=count)

    def search(self, condition: str) -> None:
        """Show the runs of which a condition holds, with the parents of the nested ones."""
        field = self.page.get_by_placeholder("metrics.rmse")
        field.fill(condition)
        field.press("Enter")

    def tick_nested(self, count: int) -> None:
        """Select the runs that are nested in the first one. (Who ticks or unticks a parent does so with all of its nested runs.)"""
        boxes = [self.page.locator(f'[row-index="{row}"]').get_by_label("Press Space to toggle row selection") for row in (1, count)]
        boxes[0].click()
        boxes[1].click(modifiers=["Shift"])

    def compare(self) -> None:
        """Compare the selected runs."""
        self.page.get_by_role("button", name="Compare", exact=True).click()
        expect(self.page.get_by_role("heading", name="Comparing")).to_be_visible()

    def plot_in_parallel(self, parameters: Sequence[str], metric: str) -> list[Axis]:
        """On the page that compares: the axes of the plot of these parameters and this metric."""
        self.page.get_by_role("button", name="Clear All").click()
        for field, names in zip(self.page.get_by_role("combobox").all(), (parameters, (metric,)), strict=True):
            field.click()
            for name in names:
                self._choose(name)
            self.page.keyboard.press("Escape")
        plot = self.page.locator(".js-plotly-plot")
        expect(plot.locator(".axis-title")).to_have_count(len(parameters) + 1)
        return [Axis(*axis) for axis in plot.evaluate(DIMENSIONS)]

    def _choose(self, name: str) -> None:
        """Scroll to an option of the list that is open, and take it; the list holds only what is in sight of it."""
        options = self.page.locator(".rc-virtual-list:visible")
        option = options.get_by_title(name, exact=True)
        options.hover()
        self.page.mouse.wheel(0, -10_000)
        for _ in range(100):
            if option.is_visible():
                break
            self.page.mouse.wheel(0, 60)
        option.click()

    def open_model(self, name: str) -> None:
        """From the menu to the page of a registered model."""
        self.page.locator('a[href="#/models"]').click()
        self.page.get_by_role("dialog").get_by_role("button", name="Close").click()  # news of the registry
        self.page.get_by_role("link", name=name, exact=True).click()
