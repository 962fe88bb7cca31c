"""Where checkpoints may be kept, and that the three kinds of places keep them alike: the study's folder, a shared folder, S3 objects."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import pickle  # noqa: TID251  # as Ray sends
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from hpo import checkpoints, home, objects, places, storage, trial_files, trust
from hpo.checkpoints import CheckpointError, NoCheckpoint
from hpo.engine.assignment import Assignment
from hpo.engine.worker import TrialRun
from hpo.events import Created
from hpo.in_turn import InTurn
from hpo.journal import FILE_NAME, Journal
from hpo.journal_format import JournalError
from hpo.objects import ObjectPath, StorageError
from hpo.places import Place, SharedPath
from hpo.preparing import check_surroundings, stored
from hpo.problem import SpecError
from hpo.results import StoredStudy
from hpo.spec import load_spec, parse_spec
from hpo.trial import FINALS_FROM
from hpo.trial_files import trial_folder
from hpo.trust import Untrusted
from hpo.verifying import repair, verify
from tests.conftest import ROOT, run_hpo
from tests.object_store import KEYS, Store, running
from tests.test_worker import FOREVER, assignment

PLAIN = ROOT / "tests" / "specs" / "plain.yaml"
TRAINER = "tests.small_trainers:quadratic"
OWN = "study-0123456789ab"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with running(tmp_path_factory.mktemp("store")) as found:
        yield found


@pytest.fixture(params=["the study's folder", "a shared folder", "objects"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """A study's root, empty, of each kind."""
    match request.param:
        case "the study's folder":
            return tmp_path / "runs" / "study"
        case "a shared folder":
            made = SharedPath(tmp_path / OWN)
            made.mkdir()
            return made
        case _:
            store: Store = request.getfixturevalue("store")
            return ObjectPath(f"{store.uri}/{tmp_path.name}/{OWN}")


# --- what a spec may say --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("/mnt/shared", "/mnt/shared"),
        ("/mnt/shared/", "/mnt/shared"),
        ("/mnt/./a b", "/mnt/a b"),
        ("file:///mnt/shared", "/mnt/shared"),
        ("s3://bucket", "s3://bucket"),
        ("s3://bucket/", "s3://bucket"),
        ("s3://my.bucket-1/a/b_c=d+e.f/", "s3://my.bucket-1/a/b_c=d+e.f"),
        ("gs://bucket/folder", "gs://bucket/folder"),
    ],
)
def test_a_folder_and_the_uris_of_three_schemes_are_taken(text: str, kept: str) -> None:
    assert storage.checked(text) == kept
    assert storage.checked(kept) == kept


SCHEMES = (
    *("http", "https", "ftp", "hdfs", "webhdfs", "az", "abfs", "adl", "memory", "zip", "tar", "ssh", "sftp", "smb", "github", "git", "hf"),
    *(
        "dropbox",
        "oss",
        "cos",
        "gcs",
        "s3a",
        "s3n",
        "S3",
        "s33",
        "local",
        "file+http",
        "simplecache::s3",
        "filecache::s3",
        "blockcache::gs",
    ),
    *("jar", "data", "javascript", "dbfs", "wandb", "r2", "b2", "arrow", "reference", "generic", "libarchive", "root", "s3+https"),
)
TRAVERSALS = ["..", "../..", "a/../b", "a/..", "../a", "./..", "a/../../b", "..\\", "a\\..\\b", "..\n", "..\x00"]
ENCODED = ["..%2f", "%2e%2e", "%2e%2e/x"]
NAMES = ["", "a b", "*", "$HOME", "${env:X}", "`id`", "a|b", "a;b", "a'b", 'a"b', "ä", "a\tb", "<a>", "a,b", "a:b", "a~b", "a^b", "%41"]
BUCKETS = ["", "/", "/x", "ab", "a" * 64, "Bucket", "_bucket", "-ab", "ab-", ".ab", "a..b", "b ket", "[::1]", "abc:80"]
HOSTILE = (
    *["", " ", ".", "..", "/", "//", "/.", "//server/share", "relative", "./here", "~", "~/here", "~root/x", "C:\\x", "C:/x", "\\\\server"],
    *[f"{scheme}://bucket/folder" for scheme in SCHEMES],
    *[f"{scheme}:{path}" for scheme in ("s3", "gs", "file") for path in ("/bucket/folder", "bucket")],
    *[f"{root}/{path}" for path in TRAVERSALS for root in ("/mnt", "file:///mnt", "s3:/", "gs:/", "s3://bucket", "gs://bucket")],
    *[f"{root}/{path}" for path in ENCODED for root in ("s3:/", "gs:/", "s3://bucket", "gs://bucket")],
    *[f"s3://bucket/a/{name}/b" for name in NAMES],
    *[f"s3://{bucket}" for bucket in BUCKETS],
    *["s3://bucket//", "s3://bucket//x", "s3://bucket/x//", "s3://bucket/x//y", "gs://bucket/./x", "file://", "file:///", "file:////x"],
    *["file://host/x", "file://localhost/x", "file://../x", "file://./x", "file://~/x", "file://u@h/x"],
    *[f"s3://bucket/x{end}" for end in ("?a=b", "?versionId=1", "?endpoint_override=evil:80", "?anonymous=true", "#f", "?", "#")],
    *["s3://key:secret@bucket/x", "s3://key@bucket", "gs://token@bucket/x", "s3://bucket/x@y", "s3://key:sec/ret@bucket"],
    *["/mnt/a\nb", "/mnt/\x1b[31m", "/mnt/\u202ex", "\u2028/mnt", "s3://bucket/\u00ad", "s3\u200b://bucket/x"],
)


def test_two_hundred_others_are_refused_with_what_is_allowed() -> None:
    assert len(set(HOSTILE)) >= 200
    for text in HOSTILE:
        with pytest.raises(ValueError, match=r"^found .*; ") as caught:
            storage.checked(text)
        assert "secret" not in str(caught.value)
        assert "sec/ret" not in str(caught.value)
        assert str(caught.value).isprintable()


def test_a_mistake_has_its_place() -> None:
    text = PLAIN.read_text().replace("{every: 0.001s}", "{every: 1s, storage: s3://bucket/../other}")
    with pytest.raises(SpecError) as caught:
        parse_spec(text, "my.yaml")
    assert re.fullmatch(
        r"my.yaml:10:35: checkpoints.storage: found the text 's3://bucket/../other'; folders in a bucket .*, and none is `..`",
        next(line for line in str(caught.value).splitlines() if "storage" in line),
    )


def spec(*overrides: str) -> Any:
    return load_spec(PLAIN, trainer_override=TRAINER, overrides=overrides)


def test_the_storage_of_a_spec_comes_before_that_of_the_machines() -> None:
    mine = spec("checkpoints.storage=/mnt/mine/")
    assert mine.checkpoints.storage == "/mnt/mine"
    assert stored(mine, "s3://theirs").checkpoints.storage == "/mnt/mine"
    assert stored(spec(), "s3://theirs/").checkpoints.storage == "s3://theirs"
    assert stored(spec(), None).checkpoints.storage is None
    assert parse_again(stored(spec(), "s3://theirs")).checkpoints.storage == "s3://theirs"
    with pytest.raises(SpecError, match=r"checkpoints.storage: found the text 'theirs'; an absolute path"):
        stored(spec(), "theirs")


def parse_again(what: Any) -> Any:
    from hpo.spec import spec_from_dict

    return spec_from_dict(json.loads(json.dumps(what.to_dict())))


def test_each_study_has_a_folder_of_its_own_there() -> None:
    found = {storage.of_new_study("s3://bucket/x", "fashion") for _ in range(100)}
    assert len(found) == 100
    assert all(re.fullmatch(r"s3://bucket/x/fashion-[0-9a-f]{12}", name or "") for name in found)
    assert storage.of_new_study(None, "fashion") is None


def created(kept: str | None, told: str | None) -> Created:
    return Created("study", {"checkpoints": {"storage": told}}, {}, storage=kept)


@pytest.mark.parametrize(
    ("kept", "told"),
    [
        ("/mnt/study", "/mnt"),  # not a name that we make
        ("/study-0123456789ab", ""),
        ("/etc/study-0123456789ab", "/mnt"),  # not in the storage that the spec names, which is what the user trusts
        ("/mnt/a/study-0123456789ab", "/mnt"),
        ("/mnt/../etc/study-0123456789ab", "/mnt/../etc"),
        ("s3://bucket/../study-0123456789ab", "s3://bucket/.."),
        ("http://host/study-0123456789ab", "http://host"),
        ("s3://bucket-0123456789ab", "s3:/"),
        ("s3://bucket/study-0123456789ab", None),
        ("study-0123456789ab", ""),
    ],
)
def test_a_journal_that_names_another_place_is_refused(kept: str, told: str | None, tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="no version of hpo writes that"):
        storage.of_study(tmp_path, created(kept, told))


def test_a_journal_names_the_place(tmp_path: Path) -> None:
    assert storage.of_study(tmp_path, created(None, "/mnt")) == tmp_path
    assert isinstance(storage.of_study(tmp_path, created(f"/mnt/{OWN}", "/mnt")), SharedPath)
    assert storage.of_study(tmp_path, created(f"s3://bucket/{OWN}", "s3://bucket")) == ObjectPath(f"s3://bucket/{OWN}")


def test_before_anything_starts_the_storage_is_looked_at(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for sound in (f"file://{tmp_path}", store.uri, f"{store.uri}/not/there/yet"):
        check_surroundings(spec(f"checkpoints.storage={sound}"))
    for wrong, why in (
        (tmp_path / "missing", "is no folder here; mount or make it on all nodes"),
        ("s3://nobody", "404 Not Found: NoSuchBucket: The specified bucket does not exist"),
    ):
        with pytest.raises(SpecError, match=f"checkpoints.storage: .*{why}"):
            check_surroundings(spec(f"checkpoints.storage={wrong}"))
    monkeypatch.setattr(objects, "find_spec", lambda _: None)
    with pytest.raises(SpecError, match=r"checkpoints.storage: s3:// needs a library .*: pip install 'hpo\[s3\]'"):
        check_surroundings(spec(f"checkpoints.storage={store.uri}"))


def test_where_a_store_is_not_to_be_had_that_is_said_without_its_keys(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "WAIT_S", 0.3)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    objects._opened.cache_clear()
    try:
        with pytest.raises(StorageError) as caught:
            objects.write(ObjectPath("s3://studies/x"), b"123")
    finally:
        objects._opened.cache_clear()
    assert re.fullmatch(r"s3://studies/x: 3 bytes could not be written: .*error sending request", str(caught.value))
    assert not any(key in repr(caught.value) for key in KEYS.values() if key != "us-east-1")
    assert caught.value.__suppress_context__  # whose text quotes what was sent


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (
            "Generic S3 error: Error performing PUT http://h/b/k in 3ms - Server returned non-2xx status code: 403 Forbidden: <Error>"
            "<Code>SignatureDoesNotMatch</Code><Message>The signature does not match.</Message><AWSAccessKeyId>AKIAX</AWSAccessKeyId>"
            "<StringToSign>s3cr3t</StringToSign></Error>\n\nDebug source:\nGeneric { s3cr3t }",
            "403 Forbidden: SignatureDoesNotMatch: The signature does not match.",
        ),
        (
            "Error performing PUT http://169.254.169.254/latest/api/token in 1ms - HTTP error: error sending request",
            "no credentials were found; give this machine a role, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        ),
        ("Error performing GET http://h in 3s, after 9 retries - HTTP error: error sending request", "HTTP error: error sending request"),
    ],
)
def test_of_a_stores_answer_only_its_reason_is_repeated(answer: str, said: str) -> None:
    assert objects._said(ObjectPath("s3://bucket/x"), answer) == said


# --- a checkpoint ---------------------------------------------------------------------------------------------------------------

STATE = {"epoch": 3, "weights": torch.arange(4.0), "name": "x", "hpo": {"epoch": 3, "value": 0.5}}


def equal(found: dict[str, Any], expected: dict[str, Any]) -> bool:
    return found.keys() == expected.keys() and all(
        torch.equal(found[key], value) if isinstance(value, torch.Tensor) else found[key] == value for key, value in expected.items()
    )


def test_what_is_saved_is_read_back_and_replaced(root: Place) -> None:
    path = trial_folder(root, 3) / "last-1.1"
    with pytest.raises(NoCheckpoint):
        checkpoints.load(path)
    assert checkpoints.label(path) == {}
    checkpoints.save(path, STATE)
    assert equal(checkpoints.load(path), STATE)
    assert checkpoints.label(path) == {"epoch": 3, "value": 0.5}
    for other in (STATE | {"weights": torch.ones(2)}, {"epoch": 4}, STATE):
        checkpoints.save(path, other)
        assert equal(checkpoints.load(path), other)
    assert places.names(trial_folder(root, 3)) == ["last-1.1"]


def files_of(path: Place) -> list[Any]:
    return [path] if isinstance(path, ObjectPath) else sorted(path.iterdir())


def content_of(file: Place) -> bytes:
    return objects.read(file) if isinstance(file, ObjectPath) else file.read_bytes()


def put(file: Place, content: bytes) -> None:
    if isinstance(file, ObjectPath):
        objects.write(file, content)
    else:
        file.write_bytes(content)


@pytest.mark.parametrize("state", [STATE, {"epoch": 1}])
def test_every_flipped_byte_and_every_cut_is_found(root: Place, state: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    path = trial_folder(root, 0) / "best"
    checkpoints.save(path, state)
    tried = 0
    for file in files_of(path):
        whole = content_of(file)
        if isinstance(file, ObjectPath):  # what would be read; that it is what was put is shown by the last of these
            monkeypatch.setattr(objects, "read", lambda _: content)  # noqa: B023
        for i in range(len(whole)):
            for content in (whole[:i] + bytes([whole[i] ^ 1]) + whole[i + 1 :], whole[:i], whole[:i] + b"\n" + whole[i:]):
                if not isinstance(file, ObjectPath):
                    file.write_bytes(content)
                with pytest.raises(CheckpointError) as caught:
                    checkpoints.verify(path)
                assert not isinstance(caught.value, NoCheckpoint)
                tried += 1
        monkeypatch.undo()
        put(file, content)
        with pytest.raises(CheckpointError):
            checkpoints.load(path)
        put(file, whole)
    assert tried > 300
    assert equal(checkpoints.load(path), state)


def test_a_checkpoint_too_large_for_one_object_is_refused_before_it_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "LARGEST", 10)
    with pytest.raises(
        StorageError, match=r"s3://bucket/x: [0-9]+ bytes could not be written: one object holds 10 at most; use a shared folder"
    ):
        checkpoints.save(ObjectPath("s3://bucket/x"), STATE)


def test_what_a_worker_is_sent_is_small(tmp_path: Path) -> None:
    for folder in (ObjectPath("s3://bucket/study-0123456789ab/trials/00001"), SharedPath("/mnt/study-0123456789ab/trials/00001")):
        sent = pickle.dumps(dataclasses.replace(assignment(tmp_path, "quadratic"), folder=folder))
        assert pickle.loads(sent).folder == folder  # noqa: S301
        assert type(pickle.loads(sent).folder) is type(folder)  # noqa: S301
        assert len(sent) < 1000


# --- which stay -----------------------------------------------------------------------------------------------------------------


def saved(root: Place, number: int, **losses: float) -> Place:
    """A trial with these checkpoints, `best_1_2` for best-1.2, each labelled with its loss."""
    folder = trial_folder(root, number)
    for name, loss in losses.items():
        kind, _, age = name.partition("_")
        path = folder / (f"{kind}-{age.replace('_', '.')}" if age else kind)
        checkpoints.save(path, {"loss": loss, "weights": torch.full((2,), loss), checkpoints.LABEL: {"epoch": 1, "value": loss}})
    return folder


def loss_of(path: Place) -> float:
    return float(checkpoints.label(path)["value"])


@pytest.mark.parametrize(
    ("there", "best"),
    [
        ({}, None),
        ({"last_1_1": 1.0}, None),
        ({"best_1_1": 1.0, "last_1_1": 1.0}, 1.0),
        ({"best_1_1": 1.0, "best_1_2": 2.0, "last_1_2": 2.0}, 1.0),
        ({"best_1_1": 2.0, "best_2_1": 1.0, "last_1_1": 3.0, "last_2_1": 3.0}, 1.0),
        ({"best": 1.0}, 1.0),
        ({"best": 2.0, "best_1_3": 1.0}, 1.0),  # a crash in the middle, and then another attempt
        ({"best": 1.0, "best_1_3": 2.0, "last_9_9": 0.0}, 1.0),
    ],
)
@pytest.mark.parametrize("keeps", [True, False])
def test_of_a_trial_that_is_over_the_best_stays_and_nothing_else(
    root: Place, there: dict[str, float], best: float | None, keeps: bool
) -> None:
    folder = saved(root, 7, **there)
    for _ in range(2):  # it may be done again
        trial_files.settle(folder, loss_of if keeps else None)
        kept = places.names(folder)
        assert kept == (["best"] if (best if keeps else there.get("best")) is not None else [])
        assert not keeps or best is None or loss_of(folder / "best") == best
    trial_files.forget(folder)
    assert places.names(folder) == []


def test_of_a_trial_that_waits_one_best_stays_and_what_it_goes_on_from(root: Place) -> None:
    folder = saved(root, 2, best_1_1=2.0, best_1_2=1.0, best_2_1=3.0, last_1_2=0.0, last_2_1=0.0)
    trial_files.keep_one_best(folder, loss_of)
    assert places.names(folder) == ["best-1.2", "last-1.2", "last-2.1"]
    trial_files.drop_older(folder, 2, 1)
    assert places.names(folder) == ["best-1.2", "last-2.1"]
    assert trial_files.newest(folder, "last") == folder / "last-2.1"
    assert trial_files.newest(folder, "last", since=3) is None  # a trial of that number from before the journal lost its end
    trial_files.drop(folder, "last")
    trial_files.drop(folder, "best")
    assert places.names(folder) == []


def test_all_that_is_there_is_known_at_once(root: Place) -> None:
    saved(root, 0, best=1.0)
    saved(root, 12, last_1_1=1.0, best_1_1=1.0)
    saved(root, FINALS_FROM + 3, best=1.0)
    put(trial_folder(root, 12) / "output-1.1.log", b"words")
    found = {number: sorted(names) for number, names in trial_files.stored(root).items()}
    assert found == {0: ["best"], 12: ["best-1.1", "last-1.1", "output-1.1.log"], FINALS_FROM + 3: ["best"]}
    assert [(number, path.name) for number, path in trial_files.checkpoints_of(root)] == [
        (0, "best"), (12, "best-1.1"), (12, "last-1.1"), (FINALS_FROM + 3, "best"),
    ]  # fmt: skip


def test_unknown_trials_are_put_aside_and_damaged_checkpoints_too(root: Place) -> None:
    for number in (0, 1, 2):
        saved(root, number, last_1_1=1.0)
    assert [path.name for path in trial_files.strangers(root, 1, 0)] == ["00001", "00002"]
    trial_files.drop_strangers(root, 1, 0, 4)
    assert sorted(trial_files.stored(root)) == [0]
    aside = root / "dropped-4" / "trials" / "00002" / "last-1.1"
    assert checkpoints.load(aside)["loss"] == 1.0
    kept = trial_files.set_aside(trial_folder(root, 0) / "last-1.1")
    assert kept == trial_folder(root, 0) / "damaged-last-1.1"
    assert checkpoints.load(kept)["loss"] == 1.0
    assert trial_files.newest(trial_folder(root, 0), "last") is None


class PowerCut(Exception):
    """The process ends here."""


class Cuts:
    """Lets so many steps be taken that change what is stored, and cuts the power before the next."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.left = 10**9
        self.taken = 0
        for module, name in ((os, "unlink"), (os, "rmdir"), (os, "rename"), (os, "mkdir"), (os, "replace")):
            patch.setattr(module, name, self._counted(getattr(module, name)))
        for name in ("write", "remove", "copy"):
            patch.setattr(objects, name, self._counted(getattr(objects, name)))

    def _counted(self, step: Callable[..., Any]) -> Callable[..., Any]:
        def taken(*words: Any, **more: Any) -> Any:
            if self.left <= 0:
                raise PowerCut
            self.left -= 1
            self.taken += 1
            return step(*words, **more)

        return taken


@pytest.mark.parametrize("keeps", [True, False])
@pytest.mark.parametrize(
    "there",
    [
        {"best_1_1": 1.0, "best_1_2": 2.0, "last_1_1": 1.0, "last_1_2": 2.0},
        {"best": 2.0, "best_1_2": 1.0, "last_1_2": 2.0},
        {"best": 1.0, "best_1_2": 2.0},
    ],
)
def test_a_power_cut_between_any_two_steps_loses_no_best_and_is_made_up_for(
    root: Place, there: dict[str, float], keeps: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    cuts, steps = Cuts(monkeypatch), 0
    for number in range(100):
        folder = saved(root, number, **there)
        cuts.left = number
        try:
            trial_files.settle(folder, loss_of if keeps else None)
        except PowerCut:
            steps += 1
        cuts.left = 10**9
        whole = [path for _, path in trial_files.checkpoints_of(root) if path.parent == folder]
        for path in whole:
            checkpoints.verify(path)  # what is half removed is none any more
        assert not keeps or 1.0 in map(loss_of, whole)
        trial_files.settle(folder, loss_of if keeps else None)
        assert places.names(folder) == (["best"] if keeps or "best" in there else [])
        assert not keeps or loss_of(folder / "best") == 1.0
        if steps <= number:
            break
    assert steps >= (1 if isinstance(root, ObjectPath) else 4)


def test_what_a_power_cut_leaves_of_a_save_is_the_old_state_or_the_new_one(root: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    path, cuts, steps = trial_folder(root, 0) / "last-1.1", Cuts(monkeypatch), 0
    for number in range(50):
        old, new = {"epoch": number, "w": torch.full((2,), float(number))}, {"epoch": number + 1, "w": torch.full((2,), float(-number))}
        checkpoints.save(path, old)
        cuts.left = number
        try:
            checkpoints.save(path, new)
        except PowerCut:
            steps += 1
        cuts.left = 10**9
        found = checkpoints.load(path)
        assert equal(found, old) or equal(found, new)
        if steps <= number:
            assert equal(found, new)
            break
    assert steps >= 1


# --- how much is asked ----------------------------------------------------------------------------------------------------------


def test_a_trial_in_an_object_store_costs_few_requests(store: Store, tmp_path: Path) -> None:
    """What docs/architecture.md states."""
    folder = trial_folder(ObjectPath(f"{store.uri}/{tmp_path.name}/{OWN}"), 0)
    plan = dataclasses.replace(
        assignment(tmp_path, "quadratic"), folder=folder, rungs=(3, 9), checkpoint_every_s=FOREVER, pauses=True, since=1
    )
    first = TrialRun(plan, capture=False)
    with store.counted() as asked:
        first.advance(FOREVER)
        first.close()
    assert asked == {"put": 2}  # the best, and what to go on from: there can be nothing yet
    with store.counted() as asked:
        trial_files.keep_one_best(folder, loss_of)
    assert asked == {"list": 1}
    second = TrialRun(dataclasses.replace(plan, attempt=2), capture=False)
    with store.counted() as asked:
        second.advance(FOREVER)
        second.close()
    assert asked == {"list": 1, "get": 2, "put": 1}  # what there is, what it goes on from, and what it has to beat; the best
    with store.counted() as asked:
        trial_files.settle(folder, loss_of)
    assert asked == {"list": 1, "get": 2, "copy": 1, "delete": 1}
    with store.counted() as asked:
        trial_files.forget(folder)
    assert asked == {"delete": 1}
    assert store.keys(f"/{tmp_path.name}") == []


# --- a shared folder ------------------------------------------------------------------------------------------------------------


def test_where_a_shared_folder_is_not_mounted_nothing_is_written_in_its_place(tmp_path: Path) -> None:
    path = trial_folder(SharedPath(tmp_path / "mnt" / OWN), 0) / "last-1.1"
    with pytest.raises(StorageError, match=rf"{OWN}: is not there; is the storage mounted on "):
        checkpoints.save(path, STATE)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(StorageError):
        storage.make_ready(SharedPath(tmp_path / OWN), is_new=False)
    storage.make_ready(SharedPath(tmp_path / OWN), is_new=True)
    assert (tmp_path / OWN).is_dir()


def test_a_client_that_remembers_what_a_folder_held_is_made_to_ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As NFS's clients do: a listing stands until this client changes the folder."""
    remembered: dict[Path, list[str]] = {}
    listdir, mkdir = os.listdir, os.mkdir
    monkeypatch.setattr(os, "listdir", lambda folder: remembered.setdefault(Path(folder), listdir(folder)))

    def changed(path: Any, *words: Any) -> None:
        mkdir(path, *words)
        remembered.pop(Path(path).parent, None)

    monkeypatch.setattr(os, "mkdir", changed)
    for kind, sees in ((Path, []), (SharedPath, ["last-1.1"])):
        folder = kind(tmp_path / kind.__name__)
        folder.mkdir()
        assert places.names(folder) == []
        mkdir(folder / "last-1.1")  # by another client
        assert places.names(folder) == sees


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EACCES])
def test_what_a_shared_folder_refuses_is_no_trials_fault(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number), "somewhere")

    own = SharedPath(tmp_path / OWN)
    own.mkdir()
    plan = dataclasses.replace(assignment(tmp_path, "quadratic"), folder=trial_folder(own, 0), checkpoint_every_s=0.0)
    monkeypatch.setattr(checkpoints, "sync_folder", refused)
    report = TrialRun(plan, capture=False).advance(FOREVER)
    assert report.measurements == ()
    assert report.failure is not None
    assert report.failure.rule == "disk"  # the study stops, and goes on when it is mended
    assert os.strerror(number) in report.failure.reason


# --- logs -----------------------------------------------------------------------------------------------------------------------


def logged(plan: Assignment) -> TrialRun:
    run = TrialRun(plan)
    run.advance(FOREVER)
    run.close()
    return run


def test_the_logs_of_a_trial_in_an_object_store_are_there_when_it_ends(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    folder = ObjectPath(f"{store.uri}/{tmp_path.name}/{OWN}/trials/00000")
    plan = dataclasses.replace(assignment(tmp_path, "mixed", arguments={"x": 0.5, "kind": "raising"}), folder=folder)
    run = TrialRun(plan)
    report = run.advance(FOREVER)
    assert report.failure is not None
    assert report.failure.reason.endswith(f"(see {folder}/error-1.1.log)")
    assert places.names(folder) == ["error-1.1.log", "output-1.1.log"]  # before the study hears of it
    run.close()
    assert b'raise RuntimeError("boom")' in objects.read(folder / "error-1.1.log")
    assert objects.read(folder / "output-1.1.log") == b"epoch 1\nepoch 2\n"
    assert [path for path in (tmp_path / f"hpo-{os.getuid()}").rglob("*") if path.is_file()] == []
    logged(dataclasses.replace(plan, attempt=2))
    assert objects.read(folder / "output-1.2.log") == b"epoch 1\nepoch 2\n"  # each attempt's own


def test_of_a_long_log_the_end_is_handed_over_and_the_rest_stays(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("hpo.engine.trial_logs.MOST_BYTES", 10)
    folder = ObjectPath(f"{store.uri}/{tmp_path.name}/{OWN}/trials/00000")
    logged(dataclasses.replace(assignment(tmp_path, "mixed", max_epochs=3), folder=folder))
    (kept,) = (tmp_path / f"hpo-{os.getuid()}").rglob("output*.log")
    assert kept.read_text() == "epoch 1\nepoch 2\nepoch 3\n"
    said = objects.read(folder / "output-1.1.log").decode()
    assert re.fullmatch(rf"\[14 bytes before this are in {kept} on \S+\]\n2\nepoch 3\n", said)


def test_a_folder_that_is_somebody_elses_is_not_written_to(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / f"hpo-{os.getuid()}").symlink_to(tmp_path / "theirs")
    (tmp_path / "theirs").mkdir()
    folder = ObjectPath(f"{store.uri}/{tmp_path.name}/{OWN}/trials/00000")
    with pytest.raises(PermissionError, match="is not this user's alone"):
        TrialRun(dataclasses.replace(assignment(tmp_path, "mixed"), folder=folder))
    assert list((tmp_path / "theirs").iterdir()) == []


# --- deleting -------------------------------------------------------------------------------------------------------------------


def study(folder: Path, kept_in: str) -> Place:
    """A study that has begun, with a checkpoint in that storage; its root."""
    what = spec(f"checkpoints.storage={kept_in}")
    first = Created(folder.name, what.to_dict(), {}, storage=storage.of_new_study(kept_in, folder.name))
    with Journal.create(folder / FILE_NAME) as journal:
        journal.append([first])
    root = storage.of_study(folder, first)
    storage.make_ready(root, is_new=True)
    saved(root, 0, best=1.0)
    return root


@pytest.mark.parametrize("kind", ["shared", "s3"])
def test_a_study_is_removed_with_its_checkpoints_and_nothing_beside_them(kind: str, store: Store, tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    kept_in = str(tmp_path / "shared") if kind == "shared" else f"{store.uri}/{tmp_path.name}"
    mine, twin = study(tmp_path / "home" / "a", kept_in), study(tmp_path / "other" / "a", kept_in)
    beside = saved(places.place(f"{mine}x"), 0, best=2.0)  # a name that only begins alike
    assert home.delete(tmp_path / "home" / "a") == [mine, tmp_path / "home" / "a"]
    assert trial_files.stored(mine) == {}
    assert not (tmp_path / "home" / "a").exists()
    assert checkpoints.load(trial_folder(twin, 0) / "best")["loss"] == 1.0
    assert checkpoints.load(beside / "best")["loss"] == 2.0


def test_a_copy_of_a_study_leaves_the_checkpoints_to_the_study(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    root = study(tmp_path / "home" / "a", str(tmp_path / "shared"))
    shutil.copytree(tmp_path / "home" / "a", tmp_path / "home" / "b")
    assert home.delete(tmp_path / "home" / "b") == [tmp_path / "home" / "b"]
    assert checkpoints.load(trial_folder(root, 0) / "best")["loss"] == 1.0


def test_where_the_store_cannot_be_reached_nothing_is_deleted(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study(tmp_path / "a", f"{store.uri}/{tmp_path.name}")

    def refused(_: Any) -> list[ObjectPath]:
        raise StorageError(errno.EREMOTEIO, "cannot be listed: 503", "s3://studies")

    monkeypatch.setattr(objects, "below", refused)
    with pytest.raises(home.HomeError, match="cannot be removed: cannot be listed: 503"):
        home.delete(tmp_path / "a")
    assert (tmp_path / "a" / FILE_NAME).exists()


def test_what_only_a_strangers_journal_names_is_not_asked_written_or_removed(store: Store, tmp_path: Path) -> None:
    kept_in = f"{store.uri}/{tmp_path.name}"
    root = study(tmp_path / "a", kept_in)
    found = StoredStudy.open(tmp_path / "a")
    with store.counted() as asked:
        assert found._has_best(0)  # it may
        (check,) = [check for check in verify(found.folder, ask_mlflow=False) if check.name == "checkpoints"]
        assert (check.ok, "hpo trust a" in check.found) == (False, True)
        with pytest.raises(Untrusted, match=f"study a wants to keep checkpoints in {kept_in}. You launched no study that did"):
            repair(found.folder)
        deleted = run_hpo(tmp_path, "delete", "a", "--yes")
        assert deleted.code == 2
        assert f"study a wants to keep checkpoints in {kept_in}" in deleted.err
    assert asked == {}
    assert checkpoints.load(trial_folder(root, 0) / "best")["loss"] == 1.0
    trust.vouch(trust.of_study(found))
    assert run_hpo(tmp_path, "delete", "a", "--yes").code == 0
    assert trial_files.stored(root) == {}


# --- beside ---------------------------------------------------------------------------------------------------------------------


def test_what_belongs_to_one_trial_is_done_in_turn_and_nobody_waits() -> None:
    beside, gate, done = InTurn(), threading.Event(), list[tuple[int, int]]()
    for step in range(5):
        for trial in range(20):
            beside.do(trial, lambda trial=trial, step=step: (gate.wait(), done.append((trial, step))))
    assert done == []
    gate.set()
    beside.wait(7)
    assert [step for trial, step in done if trial == 7] == [0, 1, 2, 3, 4]
    beside.wait()
    assert sorted(done) == [(trial, step) for trial in range(20) for step in range(5)]
    for trial in range(20):
        assert [step for number, step in done if number == trial] == [0, 1, 2, 3, 4]


def test_what_fails_beside_is_heard_of_where_it_is_waited_for_and_what_rests_on_it_is_left() -> None:
    beside, done = InTurn(), list[int]()
    gate = threading.Event()

    def failing() -> None:
        gate.wait()
        raise StorageError(errno.EREMOTEIO, "503", "s3://bucket")

    beside.do(1, failing)
    beside.do(1, lambda: done.append(1))
    beside.do(2, lambda: done.append(2))
    gate.set()
    beside.wait(2)
    with pytest.raises(StorageError, match="503"):
        beside.wait(1)
    beside.wait()
    assert done == [2]
    beside.do(1, lambda: done.append(3))
    beside.wait(1)
    assert done == [2, 3]


# --- a hang ---------------------------------------------------------------------------------------------------------------------

HANGING = """
import ctypes, sys
from pathlib import Path
from hpo.engine.hang_report import ReportingWatchdog
from hpo.objects import ObjectPath
watchdog = ReportingWatchdog(0.5, Path(sys.argv[1]), ObjectPath(sys.argv[2]))
for _ in range(3):
    with watchdog.watching():
        pass
print("watched", flush=True)
with watchdog.watching():
    ctypes.PyDLL(None).sleep(600)  # in C, with Python's lock
"""


@pytest.mark.parametrize("reachable", [True, False])
def test_a_worker_that_hangs_in_c_is_reported_and_then_killed(store: Store, tmp_path: Path, reachable: bool) -> None:
    """The report is there before the worker is dead; without a store it dies all the same."""
    log = ObjectPath(f"{store.uri}/{tmp_path.name}/{OWN}/trials/00000/hang-1.1.log")
    environment = dict(os.environ)
    if not reachable:
        (tmp_path / "sitecustomize.py").write_text("import hpo.objects\nhpo.objects.WAIT_S = 0.3\n")
        environment |= {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-c", HANGING, str(tmp_path / "hang.log"), str(log)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT, timeout=120, check=False)
    assert (done.stdout, done.returncode) == ("watched\n", -signal.SIGKILL)
    assert trial_files.has_hung(log.parent, 1, 1) == reachable
    assert not reachable or b"in <module>" in objects.read(log)
