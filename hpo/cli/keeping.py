"""Commands that look after a study: stop, verify, replay, explain, track."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import click

from hpo.cli.elsewhere import or_elsewhere
from hpo.cli.words import DAMAGED, DONE, FAILURE, as_json, example, print_json

STOP_WAIT_S = 30.0


@click.command(epilog=example("hpo stop fashion"))
@click.argument("study")
@as_json
@or_elsewhere("stop")
def stop(study: str, as_json: bool) -> None:
    """Stop a study that runs on this machine or on the cluster, as Ctrl-C would; `hpo resume` goes on with it."""
    from hpo.halting import stop as stop_study

    holder = stop_study(_folder(study), STOP_WAIT_S)
    if as_json:
        print_json({"study": study, "host": holder.host, "process": holder.process})
    else:
        click.echo(f"stopped {study} ({holder}); go on with it by `hpo resume {study}`")


@click.command(epilog=example("hpo verify fashion", "hpo verify fashion --repair"))
@click.argument("study")
@click.option("--repair", is_flag=True, help="Drop what is damaged in journal and checkpoints, keep it beside them, and say what it was.")
@click.option("--offline", is_flag=True, help="Do not compare with MLflow.")
@as_json
@or_elsewhere()
def verify(study: str, repair: bool, offline: bool, as_json: bool) -> None:
    """Check that journal, sampler's history, checkpoints and MLflow agree.

    Exits with 65 if they do not, and with 1 if only MLflow lacks something: `hpo track` mends that.
    """
    from hpo import verifying

    folder = _folder(study)
    repairs = verifying.repair(folder) if repair else []
    for line in repairs or (["nothing to repair"] if repair else []):
        click.echo(line, err=as_json)
    checks = verifying.verify(folder, ask_mlflow=not offline)
    if as_json:
        print_json({"repaired": repairs, "checks": [dataclasses.asdict(check) for check in checks]})
    else:
        from hpo import show

        show.checks(checks)
    wrong = {check.name for check in checks if not check.ok}
    sys.exit(DAMAGED if wrong - {"mlflow"} else FAILURE if wrong else DONE)


@click.command(epilog=example("hpo replay fashion"))
@click.argument("study")
@as_json
@or_elsewhere()
def replay(study: str, as_json: bool) -> None:
    """Make every suggestion and decision again from the journal, and report the first that differs.

    Exits with 65 if one does.
    """
    from hpo.replaying import replay_decisions
    from hpo.results import StoredStudy
    from hpo.specified import rules_of, sampler_of

    found = StoredStudy.open(_folder(study))
    spec = found.spec
    replayed = replay_decisions(rules_of(spec), sampler_of(spec), found.records)
    if as_json:
        print_json(dataclasses.asdict(replayed))
    else:
        from hpo import show_decisions

        show_decisions.replayed(found, replayed)
    sys.exit(DONE if replayed.divergence is None else DAMAGED)


@click.command(epilog=example("hpo explain fashion 16"))
@click.argument("study")
@click.argument("trial")
@as_json
@or_elsewhere()
def explain(study: str, trial: str, as_json: bool) -> None:
    """Tell why a trial was asked for, went on and ended, its seed, its attempts and its logs.

    TRIAL is its number, or `final-3` of the finals.
    """
    from hpo.explaining import explain as explain_trial
    from hpo.explaining import numbered
    from hpo.results import StoredStudy

    stored = StoredStudy.open(_folder(study))
    found = explain_trial(stored, numbered(stored, trial))
    if as_json:
        plain = dataclasses.asdict(found)
        ended = found.ended_at and found.ended_at.isoformat()
        print_json(plain | {"asked_at": found.asked_at.isoformat(), "ended_at": ended, "logs": [str(log) for log in found.logs]})
    else:
        from hpo import show_decisions

        show_decisions.explanation(found)


@click.command(epilog=example("hpo track fashion", "hpo track fashion --uri http://mlflow.example:5000"))
@click.argument("study")
@click.option("--uri", help="Move the record to this server; later runs of the study ship there, too.")
@click.option("--patience", default="60s", show_default=True, help="How long a server that does not answer is waited for.")
@as_json
@or_elsewhere()
def track(study: str, uri: str | None, patience: str, as_json: bool) -> None:
    """Bring MLflow in line with the journal, or move the record to another server.

    Runs and points that are missing are sent, copies deleted, the best trial registered. Done twice, the second changes
    nothing.
    """
    from hpo.durations import seconds
    from hpo.recording import track as track_study

    try:
        patience_s = seconds(patience)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--patience") from None
    found = track_study(_folder(study), uri, patience_s)
    if as_json:
        plain = {f.name: getattr(found, f.name) for f in dataclasses.fields(found) if f.name != "after"}
        print_json(plain | {"differences": [str(row) for row in found.after.differences]})
    else:
        from hpo import show_decisions

        show_decisions.tracked(found)
    sys.exit(FAILURE if found.after.differences else DONE)


@click.command(epilog=example("hpo trust fashion"))
@click.argument("study")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--code", is_flag=True, help="Allow its code alone.")
@as_json
def trust(study: str, yes: bool, code: bool, as_json: bool) -> None:
    """Allow what somebody else's study asks for outside its folder: code, an MLflow server, a storage, secrets.

    None of it is done for a journal's sake alone. What you launched studies with yourself is allowed already; this is
    kept for you in ~/.local/state/hpo.
    """
    from hpo import trust as trusting
    from hpo.results import StoredStudy

    found = trusting.doubted(trusting.of_study(StoredStudy.open(_folder(study))))
    found = [demand for demand in found if demand.kind == "code" or not code]
    for demand in found:
        click.echo(f"{study} wants to {demand}", err=True)
    if missing := [demand for demand in found if not demand.what]:
        raise click.UsageError(f"cannot {missing[0]}: go to the folder that has it, and say so there")
    if found and not yes:
        click.confirm("do you trust it?", abort=True, err=True)
    trusting.vouch(found)
    if as_json:
        print_json([{"kind": demand.kind, "what": demand.what} for demand in found])
    elif not found:
        click.echo(f"{study} asks for nothing that you do not allow already")


def _folder(study: str) -> Path:
    from hpo.home import find, study_home

    return find(study_home(), study)
