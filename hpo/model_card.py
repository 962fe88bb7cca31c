"""The model card of an exported model: what it is, how it was chosen, how good it is and on what, how to load it. Text only.

Its sections follow Mitchell et al. 2019, "Model Cards for Model Reporting"; those that only the user can write are left to them.
"""

from __future__ import annotations

from hpo.brief import short
from hpo.choice import Choice
from hpo.results import StoredStudy
from hpo.show_choice import judgement_rows, replicated, tested


def card(study: StoredStudy, found: Choice, builder: str) -> str:
    """As Markdown; `builder` is where the function is that makes the network, empty if the trainer has none."""
    spec, sections = study.spec, []
    sections.append(f"# {study.name}\n\nChosen by `hpo` from {found.trials} trials of the trainer `{spec.trainer.name}`.")
    sections.append("## Parameters\n\n" + _table(("parameter", "value"), [(name, _cell(value)) for name, value in found.params.items()]))
    sections.append("## How good it is\n\n" + _quality(study, found))
    sections.append("## How it was chosen\n\n" + _choosing(study, found))
    sections.append("## Data\n\n" + _table(("setting", "value"), [(name, _cell(value)) for name, value in found.splits.items()]))
    sections.append("## Load it\n\n" + _loading(builder))
    sections.append("## Intended use, limits\n\nNot written yet: only you know them.")
    return "\n\n".join(sections) + "\n"


def _quality(study: StoredStudy, found: Choice) -> str:
    judged = study.judged
    rows = [("test split", tested(study))]
    if judged is not None and found.mean is not None:
        rows = [("validation", replicated(judged, found.metric)), *judgement_rows(judged, found.looks), *rows]
    rows.append(("this model", f"{found.metric} {short(found.value)} on the validation data, after epoch {found.epoch}"))
    return _table(("", ""), [(name, _cell(value)) for name, value in rows]) + (f"\n\n{found.note}." if found.note else "")


def _choosing(study: StoredStudy, found: Choice) -> str:
    rows = [
        ("objective", f"{found.metric}, {study.spec.objective.direction}"),
        ("search", f"{study.spec.sampler.name}, {found.trials} trials, {found.looks:,} looks at the validation data"),
        ("configuration", found.winner),
        ("run", f"{found.run}, seed {found.seed}"),
        ("seeds of the fresh runs", ", ".join(map(str, found.fresh_seeds)) or "none"),
        ("seed of the study", str(found.study_seed)),
    ]
    return _table(("", ""), [(name, _cell(value)) for name, value in rows])


def _loading(builder: str) -> str:
    if not builder:
        load = '`safetensors.torch.load_file("model.safetensors")`'
        return f"The trainer has no `build` that makes the network; {load} gives its tensors by name."
    module, _, function = builder.partition(":")
    return f"""```python
import json
from pathlib import Path
from safetensors.torch import load_file
from {module} import {function.partition(".")[0]}

described = json.loads(Path("model.json").read_text())
network = {function}(**described["build"]["arguments"])
network.load_state_dict(load_file("model.safetensors"))
network.eval()  # maps float32 {"[rows, ...]"}, shaped as described["input_shape"] and scaled as in training
```"""


def _table(head: tuple[str, str], rows: list[tuple[str, str]]) -> str:
    return "\n".join([f"| {head[0]} | {head[1]} |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)])


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")
