"""What a journal says, as it may be shown: without what a terminal would obey. The file keeps it, and what is replayed is what it says.

Our own texts hold nothing of that kind; a stranger's may set a title, fill the clipboard or hide what was written before.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hpo.journal_format import Record

_OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_WRITTEN = re.compile(rb"\\u00(?:[01][0-9a-fA-F]|7[fF]|[89][0-9a-fA-F])|\\[bfr]|\x7f|\xc2[\x80-\x9f]")  # as JSON has them


def harmless(records: list[Record], journal: Path) -> list[Record]:
    """The records with each such character replaced; as they are, and quickly, where the file holds none."""
    if _WRITTEN.search(journal.read_bytes()) is None:
        return records
    return [record._replace(event=_plain(record.event)) for record in records]


def _plain(value: Any) -> Any:
    match value:
        case str():
            found = _OBEYED.sub("\ufffd", value)
            return value if found == value else found  # a text that is one of an enumeration stays that
        case Mapping():
            return {_plain(key): _plain(each) for key, each in value.items()}
        case list() | tuple():
            return type(value)(map(_plain, value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.replace(value, **{field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)})
    return value
