"""One writer at a time: who holds a study, how a second one is told, and on which file systems a lock means anything."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from hpo import lease
from hpo.home import begin
from hpo.journal import FILE_NAME, Journal
from hpo.journal_format import JournalError
from hpo.lease import Holder, LeaseHeld, file_system, holder, is_held, is_shared, lock_file, take

MOUNTS = r"""
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard
40 27 0:30 / /srv rw,relatime shared:5 - nfs4 server:/srv rw,vers=4.2
41 40 0:31 / /srv/fast rw,relatime master:3 propagate_from:2 - tmpfs tmpfs rw
42 41 0:32 / /srv/fast/deep rw,relatime - fuse.sshfs me@there: rw
43 27 0:33 / /with\040space rw,relatime - cifs //server/with\040space rw
44 27 0:34 / /var/lib/docker/overlay2/merged rw,relatime - overlay overlay rw,lowerdir=/a:/b
45 27 0:35 / /twice rw,relatime - nfs server:/twice rw
46 45 0:36 / /twice rw,relatime - xfs /dev/vdb rw
47 27 0:37 / /home rw,relatime - lustre mgs:/home rw
48 27 0:38 / /box rw,relatime - fuse.fuse-overlayfs fuse-overlayfs rw
49 27 0:39 / /back\134slash rw,relatime - 9p share rw
"""


@pytest.mark.parametrize(
    ("path", "kind", "shared"),
    [
        ("/", "ext4", False),
        ("/work/runs/study", "ext4", False),
        ("/srv/runs", "nfs4", True),
        ("/srvice/runs", "ext4", False),  # a mount covers what is below it, not what begins like it
        ("/srv/fast/runs", "tmpfs", False),  # local, on a shared one
        ("/srv/fast/deep/runs", "fuse.sshfs", True),  # and the other way round
        ("/with space/runs", "cifs", True),
        ("/with", "ext4", False),
        (r"/back\slash/runs", "9p", True),
        ("/var/lib/docker/overlay2/merged/runs", "overlay", False),
        ("/twice/runs", "xfs", False),  # of two mounts on one folder the later covers the earlier
        ("/home/me/runs", "lustre", True),
        ("/box/runs", "fuse.fuse-overlayfs", False),
        ("/proc/1", "proc", False),
    ],
)
def test_a_path_is_on_the_file_system_that_is_mounted_nearest_above_it(path: str, kind: str, shared: bool) -> None:
    assert file_system(Path(path), MOUNTS.strip()) == kind
    assert is_shared(kind) is shared


@pytest.mark.parametrize(
    "kind", ["nfs", "smb3", "ceph", "beegfs", "vboxsf", "virtiofs", "fuse", "fuse.gcsfuse", "fuse.s3fs", "fuse.glusterfs"]
)
def test_what_other_machines_may_write_is_shared(kind: str) -> None:
    assert is_shared(kind)


@pytest.mark.parametrize("kind", ["btrfs", "xfs", "zfs", "ext3", "f2fs", "tmpfs", "overlay", "bcachefs", ""])
def test_a_local_disk_is_not_shared(kind: str) -> None:
    assert not is_shared(kind)


def test_where_nothing_is_known_of_mounts_nothing_is_said() -> None:
    assert file_system(Path("/work"), "") == ""


@pytest.mark.parametrize("start", [Journal.create, lambda path: begin(path.parent.parent, path.parent.name, exactly=True)])
def test_a_study_on_a_shared_file_system_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: object
) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(f"27 1 254:0 / / rw - ext4 /dev/vda rw\n40 27 0:30 / {tmp_path} rw - nfs4 server:/x rw\n")
    monkeypatch.setattr(lease, "MOUNTS", mounts)
    path = tmp_path / "home" / "study" / FILE_NAME
    with pytest.raises(JournalError, match=r"home/study is on a nfs4 file system.*set HPO_HOME to a folder on a local disk"):
        start(path)  # type: ignore[operator]
    assert not path.exists()
    assert not lock_file(path).exists()


def test_a_study_that_moved_to_a_shared_file_system_is_not_opened_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "there").mkdir()
    Journal.create(tmp_path / "there" / FILE_NAME).close()
    (tmp_path / "here").symlink_to(tmp_path / "there")
    mounts = tmp_path / "mountinfo"
    mounts.write_text(f"40 27 0:30 / {tmp_path / 'there'} rw - fuse.sshfs me@there: rw\n")
    monkeypatch.setattr(lease, "MOUNTS", mounts)
    with pytest.raises(JournalError, match=r"fuse\.sshfs"):
        Journal.open(tmp_path / "here" / FILE_NAME)  # a link is followed to where the file is


def test_without_mounts_to_read_the_lock_is_tried_and_a_useless_one_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "MOUNTS", tmp_path / "no such file")
    Journal.create(tmp_path / "a" / FILE_NAME).close()
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)  # as on a file system that ignores it
    with pytest.raises(JournalError, match=r"is on a file system without locks.*set HPO_HOME"):
        Journal.create(tmp_path / "b" / FILE_NAME)


def test_the_holder_is_in_the_lock_file_and_says_host_process_and_age(tmp_path: Path) -> None:
    path = tmp_path / FILE_NAME
    assert holder(path) is None
    assert not is_held(path)
    descriptor = take(path)
    assert is_held(path)
    found = holder(path)
    assert found is not None
    assert (found.host, found.process) == (socket.gethostname(), os.getpid())
    assert timedelta(0) <= datetime.now(UTC) - found.since < timedelta(minutes=1)
    os.close(descriptor)
    assert not is_held(path)
    assert holder(path) == found  # who had it last


def test_a_second_one_is_told_by_whom_since_when_and_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "study" / FILE_NAME
    path.parent.mkdir()
    descriptor = take(path)
    since = datetime.now(UTC) - timedelta(hours=2)
    lock_file(path).write_text(json.dumps({"host": "node-7", "process": 4711, "since": since.isoformat()}))
    began = time.monotonic()
    with pytest.raises(LeaseHeld) as refused:
        take(path)
    assert time.monotonic() - began < 1
    words = str(refused.value)
    assert f"{path} is being written by process 4711 on node-7 since {since:%Y-%m-%d %H:%M:%S} UTC (2h" in words
    assert "`hpo stop study`" in words
    os.close(descriptor)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"host": "a"}', b'{"host": "a", "process": 1, "since": "yesterday"}', b"\xff"])
def test_a_lock_file_that_says_nothing_still_locks(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / FILE_NAME
    descriptor = take(path)
    lock_file(path).write_bytes(content)
    assert holder(path) is None
    with pytest.raises(LeaseHeld, match="another process"):
        take(path)
    os.close(descriptor)
    os.close(take(path))
    assert holder(path) is not None  # written anew


def test_a_glance_at_whether_a_study_runs_keeps_nobody_from_starting_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / FILE_NAME
    os.close(take(path))
    with lock_file(path).open("rb") as glance:
        fcntl.flock(glance, fcntl.LOCK_SH | fcntl.LOCK_NB)
        monkeypatch.setattr(time, "sleep", lambda _: fcntl.flock(glance, fcntl.LOCK_UN))  # it is over at the next look
        os.close(take(path))


def test_the_lease_of_a_process_goes_with_it_and_not_to_its_children(tmp_path: Path) -> None:
    path = tmp_path / FILE_NAME
    program = (
        "import sys, pathlib, subprocess, hpo.lease as l; l.take(pathlib.Path(sys.argv[1]));"
        "child = subprocess.Popen(['sleep', '60']); print(child.pid, flush=True); input()"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as first:
        assert first.stdout is not None
        child = int(first.stdout.readline())
        try:
            with pytest.raises(LeaseHeld, match=f"process {first.pid} on {socket.gethostname()} "):
                take(path)
            first.kill()
            first.wait()
            os.kill(child, 0)  # it lives
            os.close(take(path))
        finally:
            os.kill(child, 9)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    path = tmp_path / "missing" / FILE_NAME
    with pytest.raises((JournalError, OSError), match="missing"):
        take(path)


def test_the_age_is_in_words_that_people_use() -> None:
    now = datetime.now(UTC)
    assert str(Holder("a", 1, now)).endswith("UTC (1s)")
    assert "(1d3h" in str(Holder("a", 1, now - timedelta(days=1, hours=3)))
