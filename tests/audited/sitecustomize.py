"""Put on PYTHONPATH, it notes every opening of an MNIST file by any process of a study, in the file that HPO_TEST_AUDIT names."""

import os
import sys

LOG = os.environ.get("HPO_TEST_AUDIT")


def _note(event: str, arguments: tuple[object, ...]) -> None:
    if event != "open" or not isinstance(arguments[0], str | bytes | os.PathLike):
        return
    name = os.path.basename(os.fsdecode(arguments[0]))  # noqa: PTH119
    if name.endswith("-ubyte.gz"):
        line = f"{os.getpid()}\t{name}\t{' '.join(sys.orig_argv)}\n"
        descriptor = os.open(LOG, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(descriptor, line.encode())
        os.close(descriptor)


if LOG:
    sys.addaudithook(_note)
