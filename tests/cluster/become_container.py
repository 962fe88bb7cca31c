"""Become a container: `python become_container.py FILE`, as root in a mount namespace of its own, does what a container runtime would.

FILE is JSON: `scratch` (an empty folder), `mounts` (each with `at`, and either `size` in bytes, for an empty writable folder, or
`source`, shown there, read-only where `readOnly`), `hosts` (lines of /etc/hosts), `user`, `group`, `groups`, `environment`, `words`.
The machine's own files stand in for the image: read-only, whatever the manifest does not mount over them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any


def _mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True)


def _root(scratch: Path, wanted: dict[str, Any]) -> Path:
    """A root file system with the mounts in their places, and nothing else of it writable."""
    _mount("-t", "tmpfs", "-o", "mode=0755", "tmpfs", str(scratch))
    upper, work, root = (scratch / name for name in ("upper", "work", "root"))
    for folder in (upper, work, root):
        folder.mkdir()
    _mount("-t", "overlay", "overlay", "-o", f"lowerdir=/,upperdir={upper},workdir={work}", str(root))
    (root / "root").chmod(0o755)  # where the interpreter may be
    (root / "etc" / "hosts").write_text(wanted["hosts"])
    with (root / "etc" / "passwd").open("a") as users:  # as the image has it
        users.write(f"container:x:{wanted['user']}:{wanted['group']}::/home/hpo:/usr/sbin/nologin\n")
    places = [root / mount["at"].lstrip("/") for mount in wanted["mounts"]]
    for place, mount in zip(places, wanted["mounts"], strict=True):
        is_file = "source" in mount and Path(mount["source"]).is_file()
        (place.parent if is_file else place).mkdir(parents=True, exist_ok=True)
        if is_file:
            place.touch()
    _mount("-o", "remount,ro", str(root))
    _mount("--rbind", "/dev", str(root / "dev"))
    _mount("--bind", "/proc", str(root / "proc"))
    for place, mount in zip(places, wanted["mounts"], strict=True):
        if "size" in mount:
            _mount("-t", "tmpfs", "-o", f"mode=0777,size={mount['size']}", "tmpfs", str(place))
        else:
            _mount("--bind", mount["source"], str(place))
            if mount.get("readOnly"):
                _mount("-o", "remount,bind,ro", str(place))
    return root


def main(file: str) -> None:
    """Never returns."""
    wanted = json.loads(Path(file).read_text())
    os.chroot(_root(Path(wanted["scratch"]), wanted))
    os.chdir("/tmp")
    rights = ["--bounding-set=-all", "--inh-caps=-all", "--no-new-privs", f"--groups={','.join(map(str, wanted['groups']))}"]
    who = [f"--reuid={wanted['user']}", f"--regid={wanted['group']}"]
    os.execve("/usr/bin/setpriv", ["setpriv", *rights, *who, "--", *wanted["words"]], wanted["environment"])


if __name__ == "__main__":
    main(sys.argv[1])
