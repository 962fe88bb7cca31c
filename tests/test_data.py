"""Where datasets are found and fetched, and the seal: against a server, a folder and an apt of our own, never the network."""

import dataclasses
import functools
import gzip
import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from hpo import data, download
from hpo.data import DataError, Dataset, File, SealedError

CONTENT = {"train-images": b"images " * 20_000, "train-labels": b"labels", "t10k-images": b"sealed images", "t10k-labels": b"sealed"}


@pytest.fixture(autouse=True)
def own_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without any dataset, and without a network but our own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("HPO_DATA", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("no_proxy", "*")


def fill(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name, content in CONTENT.items():
        (folder / f"{name}.gz").write_bytes(gzip.compress(content))
    return folder


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Dataset:
    files = tuple(
        File(name, len(content), hashlib.sha256(content).hexdigest(), sealed=name.startswith("t10k-")) for name, content in CONTENT.items()
    )
    folder = str(tmp_path / "usr" / "tiny")
    known = {"licence": "none", "splits": "1 / 1 / 1", "traps": "none"}
    dataset = Dataset("tiny", **known, address="http://127.0.0.1:9/", files=files, package="dataset-tiny", package_folder=folder)
    monkeypatch.setitem(data.DATASETS, "tiny", dataset)
    return dataset


class Server(ThreadingHTTPServer):
    """Serves a folder and remembers what it was asked for."""

    daemon_threads = True
    asked: list[str]


class Quiet(SimpleHTTPRequestHandler):
    cut = 0  # how many bytes of an answer are held back

    def log_message(self, *_: object) -> None:
        """Nothing on stderr."""

    def do_GET(self) -> None:
        assert isinstance(self.server, Server)
        self.server.asked.append(self.path)
        super().do_GET()

    def copyfile(self, source: object, outputfile: object) -> None:
        content = source.read()  # type: ignore[attr-defined]
        outputfile.write(content[: len(content) - self.cut])  # type: ignore[attr-defined]


@pytest.fixture
def server(tiny: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """The official address: a server on this machine that has the files."""
    handler = functools.partial(Quiet, directory=str(fill(tmp_path / "official")))
    with Server(("127.0.0.1", 0), handler) as running:
        running.asked = []
        address = f"http://127.0.0.1:{running.server_port}/"
        monkeypatch.setitem(data.DATASETS, "tiny", dataclasses.replace(tiny, address=address))
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def program(tmp_path: Path, name: str, script: str) -> None:
    file = tmp_path / "bin" / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(f"#!/bin/sh\nPATH=/usr/bin:/bin\n{script}\n")
    file.chmod(0o755)


@pytest.fixture
def apt(tiny: Dataset, tmp_path: Path) -> Path:
    """An apt-get whose lists are empty until it updated the private ones, and a dpkg-deb; returns the log of their calls."""
    assert tiny.package_folder
    fill(tmp_path / "package")
    log = tmp_path / "apt.log"
    downloaded = 'case "$*" in *" download "*Dir::State::Lists=*) touch dataset-tiny.deb;; *" update "*Dir::State::Lists=*) ;; '
    program(tmp_path, "apt-get", f'echo "$*" >> {log}; {downloaded} *) echo "E: no lists" >&2; exit 100;; esac')
    inside = f"$3{tiny.package_folder}"
    program(tmp_path, "dpkg-deb", f'echo "$*" >> {log}; mkdir -p "{inside}"; cp {tmp_path}/package/* "{inside}"')
    return log


PLACES = {"HPO_DATA": "shared/tiny", "cache": "cache/hpo/tiny", "Debian": "usr/tiny"}


@pytest.mark.parametrize("place", PLACES)
def test_each_place_is_found(place: str, tiny: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HPO_DATA", str(tmp_path / "shared"))
    folder = fill(tmp_path / PLACES[place])
    assert data.locate(tiny.name) == data.get(tiny.name) == folder


def test_the_users_choice_goes_before_the_cache_and_that_before_the_package(
    tiny: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HPO_DATA", str(tmp_path / "shared"))
    for place in reversed(PLACES.values()):
        folder = fill(tmp_path / place)
        assert data.locate(tiny.name) == folder
    for file in (tmp_path / PLACES["HPO_DATA"]).glob("t10k-*"):
        file.unlink()
    assert data.locate(tiny.name) == tmp_path / PLACES["cache"]  # half a dataset is none


def test_a_missing_dataset_names_all_four_ways(tiny: Dataset) -> None:
    with pytest.raises(DataError) as raised:
        data.locate(tiny.name)
    for way in ("HPO_DATA", "hpo data get tiny", "apt-get install dataset-tiny", tiny.address):
        assert way in str(raised.value)


def test_an_unknown_dataset_names_the_known() -> None:
    for ask in (data.locate, data.get, data.dataset):
        with pytest.raises(DataError, match="'imagenet' is not known; allowed: digits, fashion-mnist, mnist, imdb, sst2, proben1"):
            ask("imagenet")


def test_digits_come_with_scikit_learn() -> None:
    assert data.get("digits").name == "sklearn"


GOOD = gzip.compress(CONTENT["train-images"])


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (GOOD[:-9], "found: Compressed file ended"),
        (b"<html>no such file</html>", "found: Not a gzipped file"),
        (GOOD[:12] + b"\xff\xff\xff" + GOOD[15:], "found: .*Error .*while decompressing"),
        (gzip.compress(b"Images " + CONTENT["train-images"][7:]), "expected 140000 bytes .*found 140000 bytes with"),
        (gzip.compress(CONTENT["train-images"] * 99), "expected 140000 bytes .*found more than 140000 bytes"),
    ],
    ids=["cut short", "no gzip", "bits flipped", "another file", "a bomb"],
)
def test_a_damaged_file_is_named_with_expected_and_found(
    content: bytes, found: str, tiny: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HPO_DATA", str(tmp_path / "shared"))
    file = fill(tmp_path / "shared" / "tiny") / "train-images.gz"
    file.write_bytes(content)
    with pytest.raises(DataError, match=found) as raised:
        data.get(tiny.name)
    assert str(file) in str(raised.value)


def test_download(server: Server, capfd: pytest.CaptureFixture[str]) -> None:
    folder = data.get("tiny", progress=True)
    assert folder == data.cache() / "tiny" == data.locate("tiny")
    assert {file.name for file in folder.glob("*.gz")} == {f"{name}.gz" for name in CONTENT}
    assert not list(folder.glob(".arriving*"))
    assert capfd.readouterr() == ("", "")  # no terminal, no bar
    data.get("tiny")
    assert len(server.asked) == len(CONTENT)


def test_two_at_once_download_once(server: Server) -> None:
    with ThreadPoolExecutor() as pool:
        folders = [future.result() for future in [pool.submit(data.get, "tiny") for _ in range(4)]]
    assert len(set(folders)) == 1
    assert sorted(server.asked) == sorted(f"/{name}.gz" for name in CONTENT)


def test_a_damaged_file_in_the_cache_is_fetched_again(server: Server) -> None:
    folder = data.get("tiny")
    (folder / "train-labels.gz").write_bytes(b"")
    server.asked.clear()
    assert data.get("tiny") == folder
    assert server.asked == ["/train-labels.gz"]


@pytest.mark.parametrize("fault", ["cut short", "missing", "another file"])
@pytest.mark.usefixtures("server")
def test_a_bad_download_leaves_nothing_and_names_the_ways(fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "official" / "train-labels.gz"
    if fault == "cut short":
        monkeypatch.setattr(Quiet, "cut", 9)
    elif fault == "missing":
        file.unlink()
    else:
        file.write_bytes(gzip.compress(b"Labels"))
    with pytest.raises(DataError, match=r"tiny could not be fetched: (?s:.*)hpo data get tiny"):
        data.get("tiny")
    assert not (data.cache() / "tiny" / "train-labels.gz").exists()
    assert not list((data.cache() / "tiny").glob(".arriving*"))


def test_debians_package_where_the_official_address_cannot_be_reached(apt: Path) -> None:
    folder = data.get("tiny")
    assert folder == data.cache() / "tiny"
    assert {file.name for file in folder.glob("*.gz")} == {f"{name}.gz" for name in CONTENT}
    calls = [next(word for word in line.split() if word in ("download", "update", "-x")) for line in apt.read_text().splitlines()]
    assert calls == ["download", "update", "download", "-x"]  # the machine's lists, else private ones


@pytest.mark.usefixtures("tiny")
def test_when_nothing_works_each_attempt_and_each_way_is_named(tmp_path: Path) -> None:
    program(tmp_path, "apt-get", 'echo "W: whatever" >&2; echo "E: Unable to locate package dataset-tiny" >&2; exit 100')
    with pytest.raises(DataError) as raised:
        data.get("tiny")
    said = str(raised.value)
    for part in ("http://127.0.0.1:9/train-images.gz", "refused", "Unable to locate package", "HPO_DATA", "hpo data get tiny", "install"):
        assert part in said
    assert "whatever" not in said


@pytest.mark.usefixtures("server")
def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where a folder should be")
    with pytest.raises(DataError, match=r"cache/hpo/tiny cannot be filled: .*Not a directory"):
        data.get("tiny")


@pytest.mark.usefixtures("server")
def test_a_full_disk_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(download, "_copy", full)
    with pytest.raises(DataError, match=r"cannot be filled: .*No space left"):
        data.get("tiny")


SEALED = """
import os, pathlib, shutil, sys
import numpy
from hpo import data
folder = pathlib.Path(sys.argv[1])
secret, free = folder / "t10k-labels-idx1-ubyte.gz", folder / "train-labels-idx1-ubyte.gz"
assert secret.read_bytes()
data.seal(); data.seal()
attempts = [
    secret.read_bytes,
    lambda: open(str(secret), "rb"),
    lambda: open(os.fsencode(secret), "rb"),
    lambda: os.open(secret, os.O_RDONLY),
    lambda: numpy.fromfile(secret),
    lambda: numpy.memmap(secret),
    lambda: shutil.copy(secret, folder / "copy"),
    lambda: secret.rename(folder / "renamed"),
    lambda: (folder / "linked").hardlink_to(secret),
    lambda: (folder / "symlinked").symlink_to(secret),
    lambda: data.read(folder, data.dataset("mnist").files[3]),
]
for attempt in attempts:
    try:
        attempt()
    except data.SealedError as error:
        assert "t10k-labels" in str(error) and isinstance(error, PermissionError)
    else:
        sys.exit(f"attempt {attempts.index(attempt)} got through")
assert free.read_bytes() == b"free"
open(os.dup(0)).close()
"""


def test_a_sealed_process_cannot_read_the_test_split(tmp_path: Path) -> None:
    (tmp_path / "t10k-labels-idx1-ubyte.gz").write_bytes(b"secret")
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(b"free")
    subprocess.run([sys.executable, "-c", SEALED, str(tmp_path)], check=True, stdin=subprocess.DEVNULL)


def test_finding_data_imports_nothing_heavy() -> None:
    program = (
        "import sys, hpo.data; hpo.data.dataset('mnist'); sys.exit(bool({'numpy', 'torch', 'rich', 'urllib.request'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", program], check=True, env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])})


def test_a_process_is_sealed_for_as_long_as_it_was_asked() -> None:
    """As with `hpo launch --local` in somebody's own process, who may open the test part afterwards."""
    with data.sealed(), data.sealed():
        pass
    data.refuse_if_sealed("nothing")
    with data.sealed():
        with data.sealed(), pytest.raises(SealedError):
            data.refuse_if_sealed("the test part")
        with pytest.raises(SealedError, match="t10k-images"):
            Path("t10k-images-idx3-ubyte.gz").read_bytes()
    data.refuse_if_sealed("nothing")
