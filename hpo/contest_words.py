"""A contest as a table of texts, as sentences, as Markdown and as JSON-ready data. Text only."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hpo.brief import duration, short
from hpo.contest import SHARES, ArmRow, Contest
from hpo.significance import Pair, Significance
from hpo.trajectories import Middle
from hpo.verdict import about, verdict


@dataclass(frozen=True, slots=True)
class Texts:
    """A table: a title, the names of its columns, its rows."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def arms_table(found: Contest) -> Texts:
    """One row an arm: what it had found when."""
    first = found.arms[0].label
    columns = [f"best at {share:.0%}" for share in SHARES] + [f"epochs to {first}'s last value"]
    columns += ["replicated"] if found.on_replicated else []
    rows = []
    for arm in found.arms:
        replicated = (_interval(arm.replicated),) if found.on_replicated else ()
        rows.append((arm.label, *map(_interval, arm.best), _reached(arm), *replicated))
    title = f"{found.metric} ({found.direction}), {found.epochs:,} epochs a search, {_repeats(found.rounds)}"
    return Texts(title, ("arm", *columns), tuple(rows))


def cost_table(found: Contest) -> Texts:
    """One row an arm: what it cost, beside the table of values, since both together are too wide for a terminal."""
    cells = {
        "epochs": [_count(arm.epochs) for arm in found.arms],
        "finals' epochs": [_count(arm.finals_epochs) for arm in found.arms] if _has_finals(found) else [],
        "trials": [_count(arm.trials) for arm in found.arms],
        "device time": [duration(arm.device_s.median) if arm.device_s else "" for arm in found.arms],
        "points visited": [_visited(arm) for arm in found.arms] if any(arm.points for arm in found.arms) else [],
    }
    shown = {name: column for name, column in cells.items() if column}
    rows = zip((arm.label for arm in found.arms), *shown.values(), strict=True)
    return Texts("What each search cost", ("arm", *shown), tuple(rows))


def _has_finals(found: Contest) -> bool:
    return any(run.finals_epochs for arm in found.arms for run in arm.present)


def _interval(found: Middle | None) -> str:
    if found is None:
        return "none"
    return short(found.median) + (f" [{short(found.low)}, {short(found.high)}]" if found.of > 1 else "")


def _count(found: Middle | None) -> str:
    return "" if found is None else f"{found.median:,.0f}"


def _reached(arm: ArmRow) -> str:
    if arm.reached is None:
        return "none"
    came = "" if arm.reached.count == arm.reached.of else f" ({arm.reached.count} of {arm.reached.of} did)"
    return ("not reached" if math.isinf(arm.reached.median) else f"{arm.reached.median:,.0f}") + came


def _visited(arm: ArmRow) -> str:
    return "" if arm.visited is None or not arm.points else f"{arm.visited:.0%} of {arm.points:,}"


def _repeats(count: int) -> str:
    return f"{count} repeat{'s' if count != 1 else ''}"


def pairs_table(found: Significance, title: str) -> Texts:
    """One row a pair of arms: how often the one beats the other, and what the tests say."""
    many = len(found.arms) > 2
    columns = (
        "arms",
        "P(first beats second)",
        "p (Wilcoxon)",
        *(("p (Holm)", "p (Nemenyi)") if many else ()),
        "told apart",
        "repeats needed in all",
    )
    rows = tuple(_pair_row(pair, about(pair, found), many=many) for pair in found.pairs)
    friedman = "" if found.friedman is None else f"; Friedman's test of all arms: p = {found.friedman:.3g}"
    return Texts(f"{title}, {_repeats(found.repeats)}{friedman}", columns, rows)


def _pair_row(pair: Pair, so: str, *, many: bool) -> tuple[str, ...]:
    chance = f"{pair.superiority:.2f} [{pair.low:.2f}, {pair.high:.2f}]"
    corrected = (f"{pair.holm:.3g}", "" if pair.nemenyi is None else f"{pair.nemenyi:.3g}") if many else ()
    needed = "over 1,000" if pair.needed is None else f"{so} {pair.needed}"
    told = f"{pair.better} is better" if pair.better else "no"
    return (f"{pair.first}, {pair.second}", chance, f"{pair.p:.3g}", *corrected, told, needed)


def sentences(found: Contest) -> list[str]:
    """The answer in plain words, from the value that decides."""
    middles = {arm.label: (arm.replicated if found.on_replicated else arm.best[-1]) for arm in found.arms}
    medians = {label: None if m is None else found.direction.loss(m.median) for label, m in middles.items()}
    return verdict(found.deciding, medians, value_words(found))


def value_words(found: Contest) -> str:
    """What is compared by the value that decides."""
    if found.on_replicated:
        return f"{found.metric} of the winner, trained again with fresh seeds"
    return f"the best {found.metric} after {found.epochs:,} epochs"


def reading(found: Contest) -> list[str]:
    """How the numbers are to be read."""
    fewer = "lowest to highest, for want of six repeats" if found.rounds < 6 else "95 % interval of the median"
    lines = [f"medians over repeats; in brackets the {fewer}", *found.remarks]
    if found.on_replicated:
        lines.append(
            "the winner trained again decides; a search's own best value is the best of many noisy ones and nothing is claimed of it"
        )
    return lines


def tables(found: Contest) -> list[Texts]:
    """What arms found, what they cost, then the pairs by each value that is compared, the deciding one first."""
    made = [arms_table(found), cost_table(found), pairs_table(found.deciding, value_words(found).capitalize())]
    if found.on_replicated:
        made.append(pairs_table(found.on_values, "For orientation: best value of the search"))
    return [table for table in made if table.rows]


def markdown(found: Contest, picture: str) -> str:
    """The whole answer; `picture` is the file name of the curves."""
    parts = [f"# {found.name}", "\n\n".join(f"**{line[:1].upper()}{line[1:]}.**" for line in sentences(found))]
    for table in tables(found):
        parts += [table.title, _grid(table)]
    parts += ["\n".join(f"- {line}" for line in reading(found)), f"![Best value so far against epochs]({picture})"]
    return "\n\n".join(parts) + "\n"


def _grid(table: Texts) -> str:
    lines = [table.columns, tuple("---" if i == 0 else "---:" for i in range(len(table.columns))), *table.rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)


def as_plain(found: Contest) -> dict[str, Any]:
    """JSON-ready; what is infinite or not known is null."""
    decides = "replicated" if found.on_replicated else "value"
    return {
        "name": found.name,
        "metric": found.metric,
        "direction": found.direction.value,
        "epochs": found.epochs,
        "repeats": found.rounds,
        "arms": [_arm(arm) for arm in found.arms],
        "decides": decides,
        "on_value": _finite(dataclasses.asdict(found.on_values)),
        "on_replicated": _finite(dataclasses.asdict(found.on_replicated)) if found.on_replicated else None,
        "sentences": sentences(found),
        "remarks": reading(found),
    }


def _arm(arm: ArmRow) -> dict[str, Any]:
    """An arm and its runs, the curves left out."""
    left_out = ("runs", "best")
    plain = {field.name: getattr(arm, field.name) for field in dataclasses.fields(arm) if field.name not in left_out}
    shown = {
        key: dataclasses.asdict(value) if dataclasses.is_dataclass(value) and not isinstance(value, type) else value
        for key, value in plain.items()
    }
    best = {f"{share:g}": dataclasses.asdict(m) if m else None for share, m in zip(SHARES, arm.best, strict=True)}
    runs = [
        None if run is None else {f.name: getattr(run, f.name) for f in dataclasses.fields(run) if f.name != "path"} for run in arm.runs
    ]
    found: dict[str, Any] = _finite(shown | {"best": best, "runs": runs})
    return found


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(below) for key, below in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_finite(below) for below in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
