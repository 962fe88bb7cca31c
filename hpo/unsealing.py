"""Opening the sealed test split for a study's model: once, remembered before it happens, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from hpo import own_code
from hpo.events import Tested, Unsealed
from hpo.session import Session
from hpo.trial import Trial, name_of
from hpo.trial_files import BEST, has_best, trial_folder

LOG_FILE = "test.log"


def why_sealed(session: Session) -> str:
    """Why the test split may not be opened for the study's model now; empty if it may.

    It may once. An opening that was cut off before it said anything may be made again for the same model; one of which
    nothing came, because there was nothing to open, does not count. A model that no finals chose is the best of many looks: the
    next search may find another one, and the split would be spent.
    """
    study, model = session.study, session.study.model()
    if model is None:
        return "there is no model to test"
    if study.chosen is None:
        return f"no finals chose {name_of(model.number)}"
    answers = {found.trial: found for found in study.test_results}
    if model.number in answers and answers[model.number].scores:
        return f"the test split was opened already, for {name_of(model.number)}"
    for opened in study.unsealed:
        if opened.trial != model.number and (opened.trial not in answers or answers[opened.trial].scores):
            return f"the test split was opened already, for {name_of(opened.trial)}, which is the model no longer"
    return ""


def unseal(session: Session, *, force: bool = False) -> str:
    """Test the study's model on the sealed split, in the journal before and after; why not, where it was not to be."""
    why, model = why_sealed(session), session.study.model()
    if model is None or (why and not force):
        return why
    with session.shield():
        session.study.remember(Unsealed(model.number, forced=bool(why)))
    answer = _tested(session, model)
    with session.shield():
        session.study.remember(answer)
    return ""


def _tested(session: Session, model: Trial) -> Tested:
    session.settled(model)
    checkpoint = trial_folder(session.root, model.number) / BEST
    if not has_best(session.root, model.number):
        return Tested(model.number, note="the trainer saved no checkpoint of it, so nothing was opened")
    with tempfile.TemporaryDirectory(prefix="hpo-test-") as scratch, (session.folder / LOG_FILE).open("ab") as log:
        answer = Path(scratch) / "answer.json"
        request = {
            "entry": session.entry,
            "arguments": session.arguments_of(model),
            "checkpoint": str(checkpoint.absolute() if isinstance(checkpoint, Path) else checkpoint),
            "folders": own_code.folders(session.spec.trainer.name),
            "answer": str(answer),
        }
        command = [sys.executable, "-P", "-m", "hpo.engine.tester"]
        subprocess.run(command, input=json.dumps(request).encode(), stdout=log, stderr=log, check=False)
        if not answer.exists():
            return Tested(model.number, note=f"the test broke off; see {session.folder / LOG_FILE}")
        return Tested(model.number, **json.loads(answer.read_bytes()))
