"""A study's report as one HTML file: no scripts, nothing fetched, all that users wrote escaped. Puts together what others computed."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from hpo import show_report
from hpo.brief import duration, short
from hpo.html_choice import chosen
from hpo.html_words import facts, listed, paragraph, section, table
from hpo.reporting import report
from hpo.results import StoredStudy
from hpo.trial import State

if TYPE_CHECKING:
    from hpo.pictures.picture import Picture

FILE_NAME = "index.html"
LARGEST_SVG = 1_500_000  # bytes; a PNG takes the place of a larger one
CSS = """
body { font: 15px/1.5 system-ui, "DejaVu Sans", sans-serif; color: #1a1a1a; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: .2rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; border-bottom: 1px solid #ccc; }
h3 { font-size: 1rem; margin: 1.6rem 0 .3rem; }
table { border-collapse: collapse; margin: .6rem 0; font-size: .92em; }
th, td { text-align: left; padding: .15rem .9rem .15rem 0; vertical-align: top; overflow-wrap: break-word; }
table.facts td { overflow-wrap: anywhere; } .scroll td { max-width: 24rem; } .scroll td:first-child { white-space: nowrap; }
thead th { border-bottom: 1px solid #999; } td.number, th.number { text-align: right; white-space: nowrap; }
th[scope=row] { font-weight: normal; color: #555; white-space: nowrap; }
figure { margin: 1.6rem 0; } figure img { max-width: 100%; height: auto; } figcaption, .note { color: #444; font-size: .92em; }
.scroll { overflow-x: auto; } dt { font-weight: 600; margin-top: .6rem; } dd { margin-left: 1rem; color: #444; }
@media print { body { margin: 0; max-width: none; font-size: 11px; } figure, table, dl > div { break-inside: avoid; }
  h2, h3 { break-after: avoid; } }
"""


class Advice(Protocol):
    """What to change, and the numbers behind it; a `Finding` is one."""

    @property
    def advice(self) -> str: ...

    @property
    def evidence(self) -> str: ...


def write_all(study: StoredStudy, folder: Path, wait: Callable[[], object] = lambda: None) -> Path:
    """Draw the study's pictures into `folder` and write its report beside them; the report's path.

    `wait` is called before the report is written, which names the model that MLflow's state names then.
    """
    from hpo.findings import findings
    from hpo.pictures import draw

    pictures, found = draw(study, folder), findings(study)
    wait()
    return write(study, pictures, found, folder / FILE_NAME)


def write(study: StoredStudy, pictures: Sequence[Picture], findings: Sequence[Advice], path: Path) -> Path:
    """Write the report of `study` to `path` and return that."""
    parts = [
        _headline(study),
        section("The choice", chosen(study)),
        section("Pictures", "".join(map(_picture, pictures))),
        section("What to change", _advice(findings)),
        section("What pruning did", _pruning(study)),
        section("Splits and seeds", _seeds(study)),
    ]
    page = (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(study.name)}</title>\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<style>{CSS}</style></head>\n'
        f"<body>\n{''.join(parts)}</body></html>\n"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8", errors="replace")  # a lone surrogate in a name must not cost the report
    return path


def _headline(study: StoredStudy) -> str:
    objective, search = study.spec.objective, [trial for trial in study.trials if not trial.in_finals]
    counts = {state: sum(trial.state is state for trial in search) for state in State}
    states = ", ".join(f"{count:,} {state}" for state, count in counts.items() if count)
    measured = sum(len(trial.measurements) for trial in search)
    rows = [
        ("objective", f"{objective.metric}, {objective.direction}"),
        ("trials", f"{len(search):,}: {states}" if search else "none"),
        ("epochs", f"{measured:,} in the search, up to {study.study.rules.max_epochs:,} a trial"),
        ("time", duration(study.seconds)),
        ("search", f"trainer {study.spec.trainer.name}, sampler {study.spec.sampler.name}, pruner {study.spec.pruner.name}"),
    ]
    failures = _failures(study) if counts[State.FAILED] else ""
    return f"<h1>{escape(study.name)}</h1>{paragraph(f'The study {study.standing}.')}{facts(rows)}{failures}"


def _failures(study: StoredStudy, most: int = 5) -> str:
    reasons: dict[str, int] = {}
    for trial in study.trials:
        if trial.state is State.FAILED:
            reason = trial.reason.partition(" (see ")[0]
            reasons[reason] = reasons.get(reason, 0) + 1
    common = sorted(reasons.items(), key=lambda one: -one[1])
    rows = [[str(count), reason] for reason, count in common[:most]]
    more = paragraph(f"and {len(common) - most} other reasons") if common[most:] else ""
    return table(["failed", "why"], rows, numbers=1) + more


def _picture(one: Picture) -> str:
    if one.png is None or one.svg is None:
        return f"<h3>{escape(one.title)}</h3>{paragraph(f'Not drawn: {one.lacking}.', note=True)}"
    kind, path = ("svg+xml", one.svg) if one.svg.stat().st_size <= LARGEST_SVG else ("png", one.png)
    source = f"data:image/{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"
    shown = f'<img src="{source}" alt="{escape(one.title)}">'
    return f"<figure>{shown}<figcaption>{escape(one.caption)}</figcaption></figure>\n"


def _advice(findings: Iterable[Advice]) -> str:
    items = [f"<div><dt>{escape(one.advice)}</dt><dd>{escape(one.evidence)}</dd></div>" for one in findings]
    return f"<dl>{''.join(items)}</dl>" if items else paragraph("Nothing that these trials would be sure enough about.")


def _pruning(study: StoredStudy) -> str:
    found = report(study)
    rows = [
        [rung.ladder or "-", str(rung.skipped), *(f"{n:,}" for n in (rung.epoch, rung.arrivals, rung.quota, rung.went_on, rung.waiting))]
        for rung in found.rungs
    ]
    names = ["ladder", "skips", "rung (epoch)", "came", "quota", "went on", "wait"]
    kept = [at for at in range(len(names)) if at > 1 or len({row[at] for row in rows}) > 1]
    rungs = table([names[at] for at in kept], [[row[at] for at in kept] for row in rows], numbers=5)
    ladders = [
        [one.ladder or "-", *(f"{n:,}" for n in (one.trials, one.promotions, one.complete, one.epochs)), short(one.best)]
        for one in found.ladders
    ]
    competing = table(["ladder", "trials", "promotions", "complete", "epochs", "best"], ladders, numbers=5) if len(ladders) > 1 else ""
    return facts(show_report.pruning(found)) + (rungs if rows else "") + competing


def _seeds(study: StoredStudy) -> str:
    settings = study.spec.trainer.settings
    wanted = ("split_seed", "train_size", "val_size", *(("val_share", "test_share") if settings.get("dataset") == "file" else ()))
    split = {name: value for name in wanted if (value := settings.get(name)) is not None}
    rows = [
        ("study seed", f"{study.spec.seed}; each trial's seed follows from it and the trial's number, and is in the journal"),
        *([("dataset", str(settings["dataset"]))] if "dataset" in settings else []),
        *([("split", listed(split))] if split else []),
        ("used for the choice", "the validation data alone; no trial of the search sees the test data"),
    ]
    return facts(rows)
