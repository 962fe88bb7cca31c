"""Downloads against a real server of our own: broken off, refused, wrong, without ranges. Nothing wrong ever gets a file's name."""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import hashlib
import io
import re
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from hpo import data, download
from hpo.data import DataError
from hpo.datasets_known import Archive, Dataset, File

TRAIN, TEST = bytes(range(256)) * 1000, b"sentence\tlabel\n"
GOOD = gzip.compress(TRAIN, 0, mtime=0)  # not compressed, so that it is long
HALF = len(GOOD) // 2
KNOWN = {"licence": "none", "splits": "1 / 1 / 1", "traps": "none"}


def checksum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves `files`, and remembers for each request its path and the range that was asked for.

    `behaviours` are used up one a request, the last for all that follow: "ok", "cut" (half of what is left), "nothing"
    (the headers and no byte), "whole" (ranges are ignored), "odd range" (another than was asked for), or a status.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.behaviours: list[str | int] = ["ok"]
        self.asked: list[tuple[str, str | None]] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: object) -> None:
        """Nothing on stderr."""

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.asked.append((self.path, wanted))
        todo = self.server.behaviours[0] if len(self.server.behaviours) == 1 else self.server.behaviours.pop(0)
        content = self.server.files.get(self.path)
        if isinstance(todo, int) or content is None:
            self.send_error(404 if content is None else int(todo))
            return
        first = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1]) if wanted and todo != "whole" else 0  # type: ignore[index]
        if first and first >= len(content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.end_headers()
            return
        first = first + 1 if todo == "odd range" and first else first
        self.send_response(206 if first else 200)
        self.send_header("Content-Length", str(len(content) - first))
        if first:
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        left = content[first:]
        with contextlib.suppress(ConnectionError):  # a client that has seen enough
            self.wfile.write({"cut": left[: len(left) // 2], "nothing": b""}.get(str(todo), left))


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A machine without data, and a server that has one dataset of each form: tiny, its files, packed and zipped."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("HPO_DATA", raising=False)
    monkeypatch.setenv("no_proxy", "*")
    with Server() as running:
        zipped, tarred = zip_of({"Tiny/train.tsv": TRAIN, "Tiny/other": b"x"}), tar_of({"tiny/train/1.dt": TRAIN, "tiny/README": b"x"})
        running.files = {"/train.tsv.gz": GOOD, "/tiny.zip": zipped, "/tiny.tar.gz": tarred}
        file = File("train.tsv", len(TRAIN), checksum(TRAIN))
        optional = File("test.tsv", len(TEST), checksum(TEST), sealed=True, optional="nobody publishes it")
        bundle = Archive("tiny.zip", len(zipped), checksum(zipped), f"{running.address}tiny.zip")
        made = Archive("tiny.tar.xz", 99, "0" * 64)
        official = Archive("tiny.tar.gz", len(tarred), checksum(tarred), f"{running.address}tiny.tar.gz", sealed="tiny/test/")
        for known in (
            Dataset("tiny", **KNOWN, address=running.address, files=(file,)),
            Dataset("zipped", **KNOWN, address="", files=(file, optional), bundle=bundle, bundle_folder="Tiny"),
            Dataset("packed", **KNOWN, address="", archives=(made, official)),
        ):
            monkeypatch.setitem(data.DATASETS, known.name, known)
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def zip_of(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return out.getvalue()


def tar_of(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return out.getvalue()


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {".lock"} if folder.exists() else set()


KEPT = {"tiny": {"train.tsv.gz"}, "zipped": {"train.tsv.gz"}, "packed": {"tiny.tar.gz"}}
ADDRESS = {"tiny": "/train.tsv.gz", "zipped": "/tiny.zip", "packed": "/tiny.tar.gz"}


@pytest.mark.parametrize("name", KEPT)
def test_each_form_of_dataset_is_fetched_once_and_leaves_nothing_else(name: str, server: Server) -> None:
    assert data.find(name) is None
    for _ in range(2):
        assert data.get(name) == data.locate(name) == data.cache() / name
    assert names_in(data.cache() / name) == KEPT[name]
    assert server.asked == [(ADDRESS[name], None)]


@pytest.mark.parametrize("name", KEPT)
def test_a_broken_download_goes_on_where_it_ended_as_long_as_it_brings_something(name: str, server: Server) -> None:
    server.behaviours = ["cut", "cut", "cut", "ok"]
    data.get(name)
    length, starts, have = len(server.files[ADDRESS[name]]), [], 0
    for _ in range(3):
        have += (length - have) // 2
        starts.append(f"bytes={have}-")
    assert [wanted for _, wanted in server.asked] == [None, *starts]
    assert names_in(data.cache() / name) == KEPT[name]


@pytest.mark.parametrize("name", KEPT)
def test_the_next_call_goes_on_too(name: str, server: Server) -> None:
    server.behaviours = ["cut", "nothing"]
    with pytest.raises(DataError, match=r"connection ended before the file; \d+ bytes are kept in .*\.part, and the next attempt goes on"):
        data.get(name)
    assert data.find(name) is None
    server.behaviours, before = ["ok"], len(server.asked)
    data.get(name)
    assert server.asked[before:] == [(ADDRESS[name], f"bytes={len(server.files[ADDRESS[name]]) // 2}-")]
    assert names_in(data.cache() / name) == KEPT[name]


@pytest.mark.parametrize("behaviour", ["whole", "odd range", 416])
def test_a_server_without_usable_ranges_sends_all_of_it_again(behaviour: str | int, server: Server) -> None:
    server.behaviours = ["cut", behaviour, "ok"]
    data.get("tiny")
    assert server.asked[-1][1] == ("bytes=" + str(HALF) + "-" if behaviour == "whole" else None)
    assert names_in(data.cache() / "tiny") == KEPT["tiny"]


@pytest.mark.parametrize("status", [403, 404, 500, 503])
@pytest.mark.parametrize("name", KEPT)
def test_a_refusal_is_named_with_its_address_and_all_ways(name: str, status: int, server: Server) -> None:
    server.behaviours = [status]
    with pytest.raises(DataError, match=rf"{name} could not be fetched: {server.address}.*HTTP Error {status}(?s:.*)HPO_DATA"):
        data.get(name)
    assert names_in(data.cache() / name) == set()
    assert len(server.asked) == 1


@pytest.mark.parametrize("name", KEPT)
@pytest.mark.parametrize("content", [b"", b"<html>log in first</html>", GOOD[:-3], gzip.compress(TRAIN + b"!"), b"x" * 3 * len(GOOD)])
def test_wrong_content_is_removed_and_named(name: str, content: bytes, server: Server) -> None:
    server.files[ADDRESS[name]] = content
    with pytest.raises(DataError, match=r"what came was wrong and is removed: .*expected .* found"):
        data.get(name)
    assert names_in(data.cache() / name) == set()


@pytest.mark.parametrize("name", KEPT)
def test_what_was_put_together_wrongly_is_fetched_again_from_its_start(name: str, server: Server) -> None:
    folder = data.cache() / name
    folder.mkdir(parents=True)
    part = folder / f"{ADDRESS[name][1:]}.part"
    part.write_bytes(b"<html>log in first</html>")
    data.get(name)
    assert [wanted for _, wanted in server.asked] == ["bytes=25-", None]
    assert names_in(folder) == KEPT[name]


def test_a_part_that_is_whole_is_not_fetched_again(server: Server) -> None:
    part = data.cache() / "tiny" / "train.tsv.gz.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(GOOD)
    data.get("tiny")
    assert server.asked == [("/train.tsv.gz", f"bytes={len(GOOD)}-")]


def test_a_file_much_longer_than_expected_is_not_read_to_its_end(server: Server, tmp_path: Path) -> None:
    server.files["/train.tsv.gz"] = b"x" * 100 * len(TRAIN)
    arrived: list[int] = []
    with pytest.raises(DataError):
        download.bring(f"{server.address}train.tsv.gz", tmp_path / "x", 1000, refuse, arrived.append)
    assert sum(arrived) <= 1000 + download.PIECE


def refuse(path: Path) -> None:
    raise DataError(f"{path}: expected better")


@pytest.mark.parametrize("name", KEPT)
def test_several_at_once_fetch_once(name: str, server: Server) -> None:
    with ThreadPoolExecutor() as pool:
        folders = [future.result() for future in [pool.submit(data.get, name) for _ in range(4)]]
    assert len(set(folders)) == 1
    assert server.asked == [(ADDRESS[name], None)]


def test_progress_tells_of_every_byte_once(server: Server, tmp_path: Path) -> None:
    server.behaviours = ["cut", "cut", "ok"]
    arrived: list[int] = []
    download.bring(f"{server.address}train.tsv.gz", tmp_path / "x", 2 * len(GOOD), lambda _: None, arrived.append)
    assert sum(arrived) == len(GOOD)
    assert (tmp_path / "x").read_bytes() == GOOD


def test_a_bundle_that_the_user_downloaded_is_unpacked_without_asking_the_server(server: Server) -> None:
    folder = data.cache() / "zipped"
    folder.mkdir(parents=True)
    (folder / "tiny.zip").write_bytes(server.files["/tiny.zip"])
    data.get("zipped")
    assert server.asked == []
    assert names_in(folder) == KEPT["zipped"]


def test_a_bundle_with_other_content_is_named(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for members, found in ({"Tiny/train.tsv": TRAIN[:-1]}, "found 255999 bytes"), ({"train.tsv": TRAIN}, "holds no Tiny/train.tsv"):
        zipped = zip_of(members)
        known = data.DATASETS["zipped"]
        assert known.bundle
        bundle = dataclasses.replace(known.bundle, sha256=checksum(zipped))
        monkeypatch.setitem(data.DATASETS, "zipped", dataclasses.replace(known, bundle=bundle))
        server.files["/tiny.zip"] = zipped
        with pytest.raises(DataError, match=found):
            data.get("zipped")
        assert names_in(data.cache() / "zipped") <= {"tiny.zip"}


@pytest.mark.parametrize("name", ["tiny.tar.xz", "tiny.tar.gz"])
def test_a_damaged_archive_in_the_cache_makes_way_for_the_official_one(name: str, server: Server) -> None:
    folder = data.cache() / "packed"
    folder.mkdir(parents=True)
    (folder / name).write_bytes(b"damaged")
    with pytest.raises(DataError, match=rf"{name}: expected .*run `hpo data get packed`"):
        data.archive("packed")
    data.get("packed")
    assert names_in(folder) == KEPT["packed"]
    assert data.archive("packed") == folder / "tiny.tar.gz"


def test_an_optional_file_may_be_missing_and_is_said(server: Server) -> None:
    folder = data.get("zipped")
    found = data.find("zipped")
    assert found
    assert [file.name for file in found.lacks] == ["test.tsv"]
    with pytest.raises(DataError, match=r"test\.tsv\.gz is not there \(nobody publishes it\)"):
        data.read(folder, found.lacks[0])
    (folder / "test.tsv.gz").write_bytes(gzip.compress(TEST))
    found = data.find("zipped")
    assert found
    assert not found.lacks
    assert data.read(folder, data.dataset("zipped").files[1]) == TEST
    (folder / "test.tsv.gz").write_bytes(gzip.compress(b"other"))
    with pytest.raises(DataError, match="found 5 bytes"):  # there, but damaged, is no better than damaged
        data.read(folder, data.dataset("zipped").files[1])
