"""Which trainer a spec names, and what that takes. Complains to the document; reads no settings."""

from __future__ import annotations

import re

from hpo.declarations import TrainerDeclaration, declared, find_declared
from hpo.document import Document
from hpo.problem import SpecError, hint, quoted, shown
from hpo.schema import Reader

_ENTRY = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)


def trainer_name(reader: Reader, *, code_allowed: bool) -> str | None:
    """The name in the spec, a function's only if code is allowed; None where there is none to read."""
    if "trainer" not in reader.document.data:
        return None
    found = reader.mapping(("trainer",))
    path = ("trainer", "name")
    if found is None:
        return None
    if "name" not in found:
        reader.document.complain(path, f"missing; name a trainer ({', '.join(declared())}), or pass --trainer pkg.mod:function")
        return None
    name: str | None = reader.read(str, path)
    if name is not None and code_allowed and path in reader.document.values and not _ENTRY.fullmatch(name):
        reader.document.complain(path, f"found {shown(name)}; --trainer takes `package.module:function`")
    return name


def declaration_of(trainer: str, document: Document) -> TrainerDeclaration | None:
    """What the trainer of that name takes; None, and a complaint, where there is no such trainer or it is broken."""
    path = ("trainer", "name")
    if ":" in trainer:
        document.complain(path, f"found {shown(trainer)}; a spec is data and names no code, pass --trainer pkg.mod:function")
        return None
    try:
        declaration = find_declared(trainer)
    except SpecError as error:
        document.complain(path, f"the plug-in of trainer {quoted(trainer)} is broken: {error.problems[0]}")
        return None
    if declaration is None:
        document.complain(path, f"no trainer is called {quoted(trainer)}; {hint(trainer, declared())}")
    return declaration
