"""Which exit code belongs to which foreseen error."""

from __future__ import annotations


class EngineError(Exception):
    """The engine broke; what was journaled until then stays. Look at its log, or at `hpo doctor`."""


class ClusterError(Exception):
    """This cluster cannot be joined: give another address, or mend what the text names."""


class NoSpace(EngineError):
    """A disk is full: the study stopped closed. Free space, then resume it."""


def exit_code(error: BaseException) -> int | None:
    """2 for what the user can mend in a spec or a command, 65 for damaged files, 1 for what failed around it, None for a bug."""
    from hpo.capacity import CapacityError
    from hpo.checkpoints import CheckpointError
    from hpo.data import DataError
    from hpo.engine.ray_token import TokenError
    from hpo.home import HomeError
    from hpo.journal_format import JournalDamaged, JournalError
    from hpo.problem import SpecError
    from hpo.references import SecretError

    if isinstance(error, SpecError | SecretError | CapacityError | HomeError | TokenError | ClusterError):
        return 2
    if isinstance(error, JournalDamaged | CheckpointError):
        return 65
    return 1 if isinstance(error, DataError | EngineError | JournalError | OSError) else None
