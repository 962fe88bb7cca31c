"""Archives are read member by member: whatever is damaged, odd or sealed in them is an error, and nothing is unpacked."""

from __future__ import annotations

import gzip
import hashlib
import io
import lzma
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpo import archives, data
from hpo.data import DataError
from hpo.datasets_known import Archive

CONTENT = {"top/a/1.txt": b"one " * 500, "top/a/2.txt": b"", "top/b/3.txt": bytes(range(256)), "top/README": b"read me"}


def tar_of(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for member, content in members:
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return out.getvalue()


def zip_of(content: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, member in content.items():
            archive.writestr(zipfile.ZipInfo(name), member)
    return out.getvalue()


TAR = tar_of(*((tarfile.TarInfo(name), content) for name, content in CONTENT.items()))
FORMS = {".tar.gz": gzip.compress(TAR, mtime=0), ".tar.xz": lzma.compress(TAR), ".zip": zip_of(CONTENT)}


def texts(path: Path) -> dict[str, bytes]:
    return dict(archives.members(path, lambda name: name.endswith(".txt")))


@pytest.mark.parametrize("form", FORMS)
def test_the_wanted_members_come_in_order(form: str, tmp_path: Path) -> None:
    path = tmp_path / f"x{form}"
    path.write_bytes(FORMS[form])
    found = texts(path)
    assert list(found) == ["top/a/1.txt", "top/a/2.txt", "top/b/3.txt"]
    assert all(found[name] == CONTENT[name] for name in found)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("form", FORMS)
def test_every_truncation_is_an_error(form: str, tmp_path: Path) -> None:
    path = tmp_path / f"x{form}"
    for length in range(0, len(FORMS[form]), 7):
        path.write_bytes(FORMS[form][:length])
        with pytest.raises(DataError, match=r"x\.(tar\.gz|tar\.xz|zip): expected a whole .* archive, found: "):
            texts(path)


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=150, deadline=None)
@given(where=st.floats(0, 1, exclude_max=True), bits=st.integers(1, 255))
def test_a_flipped_byte_is_an_error_or_does_no_harm(form: str, tmp_path_factory: pytest.TempPathFactory, where: float, bits: int) -> None:
    damaged = bytearray(FORMS[form])
    damaged[int(where * len(damaged))] ^= bits
    path = tmp_path_factory.mktemp("flip") / f"x{form}"
    path.write_bytes(damaged)
    try:
        found = texts(path)
    except DataError:
        return
    assert all(CONTENT.get(name) == content for name, content in found.items() if name in CONTENT)


def link(name: str, kind: bytes) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, "/etc/passwd"
    return member


def big_zip() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.txt", bytes(archives.MOST + 1))
    return out.getvalue()


ODD = {
    "symbolic link.tar.gz": (gzip.compress(tar_of((link("x.txt", tarfile.SYMTYPE), b""))), "is a link"),
    "hard link.tar.gz": (gzip.compress(tar_of((link("x.txt", tarfile.LNKTYPE), b""))), "is a link"),
    "device.tar.gz": (gzip.compress(tar_of((link("x.txt", tarfile.CHRTYPE), b""))), "a device"),
    "absolute.tar.gz": (gzip.compress(tar_of((tarfile.TarInfo("/etc/x.txt"), b"x"))), "lies outside"),
    "upwards.tar.gz": (gzip.compress(tar_of((tarfile.TarInfo("a/../../x.txt"), b"x"))), "lies outside"),
    "upwards.zip": (zip_of({"../x.txt": b"x"}), "lies outside"),
    "bomb.zip": (big_zip(), f"would have {archives.MOST + 1} bytes"),
    "web page.tar.gz": (b"<html>", "expected a whole .tar.gz archive, found: Not a gzipped file"),
    "web page.zip": (b"<html>", "expected a whole .zip archive, found: File is not a zip file"),
    "wrong format.tar.gz": (gzip.compress(b"hello" * 1000), "expected a whole .tar.gz archive"),
}


@pytest.mark.parametrize("name", ODD)
def test_an_odd_archive_is_refused(name: str, tmp_path: Path) -> None:
    path, (content, said) = tmp_path / name.replace(" ", "-"), ODD[name]
    path.write_bytes(content)
    with pytest.raises(DataError, match=said) as raised:
        texts(path)
    assert str(path) in str(raised.value)


def test_a_bomb_is_refused_by_what_its_header_says(tmp_path: Path) -> None:
    member = tarfile.TarInfo("bomb.txt")
    member.size = 2**40
    path = tmp_path / "bomb.tar.gz"
    path.write_bytes(gzip.compress(member.tobuf()))
    with pytest.raises(DataError, match=f"would have {2**40} bytes"):
        texts(path)


def test_a_missing_archive_is_named(tmp_path: Path) -> None:
    for suffix in FORMS:
        with pytest.raises(DataError, match=f"none{suffix}: expected .*No such file"):
            texts(tmp_path / f"none{suffix}")


def test_the_checksum_of_members_is_that_of_what_the_archive_holds(tmp_path: Path) -> None:
    lines = (f"{name.rpartition('/')[2]}\0{hashlib.sha256(CONTENT[name]).hexdigest()}" for name in sorted(CONTENT) if name.endswith(".txt"))
    wanted = Archive("x", 1, hashlib.sha256("".join(lines).encode()).hexdigest(), members=".txt")
    for form, content in FORMS.items():
        path = tmp_path / f"x{form}"
        path.write_bytes(content)
        archives.check(wanted, path)
    path.write_bytes(zip_of(CONTENT | {"top/a/2.txt": b"!"}))
    with pytest.raises(DataError, match=r"expected \.txt members with sha256 .*, found "):
        archives.check(wanted, path)


SEALED = """
import pathlib, sys
from hpo import data
path = pathlib.Path(sys.argv[1])
read = lambda part: [name for name, _ in data.members(path, lambda name: name.startswith(f"aclImdb/{part}/"))]
assert read("train") == ["aclImdb/train/1.txt"] and read("test") == ["aclImdb/test/1.txt"]
data.refuse_if_sealed("anything")
data.seal()
assert read("train") == ["aclImdb/train/1.txt"]
for attempt in (lambda: read("test"), lambda: data.refuse_if_sealed("aclImdb/test/")):
    try:
        attempt()
    except data.SealedError as error:
        assert "aclImdb/test/" in str(error), error
    else:
        sys.exit("got through")
"""


def test_a_sealed_process_cannot_read_sealed_members(tmp_path: Path) -> None:
    path = tmp_path / "x.tar.gz"
    path.write_bytes(gzip.compress(tar_of((tarfile.TarInfo("aclImdb/test/1.txt"), b"x"), (tarfile.TarInfo("aclImdb/train/1.txt"), b"x"))))
    subprocess.run([sys.executable, "-c", SEALED, str(path)], check=True)


def test_what_is_known_of_each_dataset_is_complete() -> None:
    assert list(data.DATASETS) == ["digits", "fashion-mnist", "mnist", "imdb", "sst2", "proben1"]
    for known in data.DATASETS.values():
        assert known.licence and known.splits and known.traps and known.address  # noqa: PT018
        assert bool(known.size) != bool(known.python_package)
        for kept in (*known.files, *known.archives, *([known.bundle] if known.bundle else [])):
            assert len(bytes.fromhex(kept.sha256)) == 32
    sealed = {file.name for known in data.DATASETS.values() for file in known.files if file.sealed}
    assert sealed == {"t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte", "test-labeled.tsv"}


@pytest.mark.parametrize("name", ["mnist", "imdb", "sst2", "proben1"])
def test_the_real_files_are_whole(name: str) -> None:
    if not (Path(os.environ.get("HPO_DATA", "/nowhere")) / name).is_dir():
        pytest.skip(f"no {name} under $HPO_DATA")
    assert data.get(name) == Path(os.environ["HPO_DATA"]) / name
