"""What a study, an experiment and a registered model may be called, so that no name leads out of the folder that it becomes. Pure."""

from __future__ import annotations

import re
import unicodedata

from hpo.problem import shown

RESERVED = ("mlflow", "mlruns", "mlartifacts")  # what else lives in the study home, SQLite's side files included
LONGEST = 250  # characters: what MLflow's databases keep of a name
_STUDY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}")
_DEVICE = re.compile(r"(?i)(?:con|prn|aux|nul|(?:com|lpt)[0-9])(?:\..*)?")  # no files on Windows, where a home may be copied to
_ENCODED = re.compile("%[0-9A-Fa-f]{2}")


def study(name: str) -> str:
    """The name of a study; ValueError where it could not be a folder anywhere."""
    if not _STUDY.fullmatch(name):
        rule = "a name is at most 64 of A-Z a-z 0-9 . _ - and starts with a letter, digit or _"
        raise ValueError(f"found {shown(name)}; {rule}, because it becomes a folder")
    if name.lower().startswith(RESERVED):
        raise ValueError(f"found {shown(name)}; names that start with {', '.join(RESERVED)} are MLflow's own in the study home")
    if _DEVICE.fullmatch(name):
        raise ValueError(f"found {shown(name)}; Windows takes it for a device; choose another")
    return name


def experiment(name: str) -> str:
    """The name of an MLflow experiment, which may be a path as in Databricks; ValueError where it is none, or leads anywhere else."""
    parts = name.removeprefix("/").split("/")
    if not all(map(_is_plain, parts)):
        rule = "a name, or several with a / between, each beginning with a letter, digit or _, is needed"
        raise ValueError(f"found {shown(name)}; {rule}: a folder is called so")
    return _bounded(name)


def model(name: str) -> str:
    """The name of a registered model; ValueError where MLflow, or its addresses of models, take it for something else."""
    if set(name) & set("/:"):
        raise ValueError(f"found {shown(name)}; MLflow's model names have no / and no :")
    if not _is_plain(name):
        raise ValueError(f"found {shown(name)}; a name that begins with a letter, digit or _ is needed, of plain letters")
    return _bounded(name)


def _is_plain(part: str) -> bool:
    """Whether a name is what it looks like: no dots alone, nothing that is encoded, no letters that programs take for others."""
    is_word = part[:1].isalnum() or part.startswith("_")
    is_told = part.isprintable() and unicodedata.normalize("NFKC", part) == part
    return is_word and is_told and not set(part) & set("\\:") and not _ENCODED.search(part)


def _bounded(name: str) -> str:
    if len(name) > LONGEST:
        raise ValueError(f"found {shown(name)}; a name has at most {LONGEST} characters")
    return name
