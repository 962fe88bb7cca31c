"""Secrets by reference: what may refer to one and where, how one is read, and that nothing written shows it."""

from __future__ import annotations

import base64
import html
import io
import json
import os
import re
import socket
import sys
import threading
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpo import references, tracking
from hpo.redacted_output import LONGEST_LINE, Lines, Redacted, redacted
from hpo.redaction import BLOT, SHORTEST, Redactor, hidden
from hpo.references import Reference, SecretError
from hpo.spec import SpecError, parse_spec, spec_from_dict

SECRET = "s3cr/t+pa@ss \"w'ord\\é"
SECRETS = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), min_size=SHORTEST, max_size=40).filter(
    lambda text: text.strip() == text and sum(map(str.isalnum, text)) >= 4
)
AROUND = st.text("xyz .,\n", max_size=20)


def redactor(*secrets: str) -> Redactor:
    made = Redactor()
    made.add(*secrets)
    return made


def plain(text: str) -> str:
    return text


def in_base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


WRITTEN: dict[str, Callable[[str], str]] = {
    "as it is": plain,
    "percent-encoded": lambda text: quote(text, safe=""),
    "percent-encoded in small letters": lambda text: re.sub("%..", lambda found: found[0].lower(), quote(text, safe="")),
    "percent-encoded but slashes": quote,
    "in a form": quote_plus,
    "in JSON": json.dumps,
    "in JSON as UTF-8": lambda text: json.dumps(text, ensure_ascii=False),
    "in JSON in JSON": lambda text: json.dumps(json.dumps({"x": text})),
    "as Python": repr,
    "as Python's bytes": lambda text: repr(text.encode()),
    "in Python's ASCII": ascii,
    "in HTML": html.escape,
    "in base64": in_base64,
    "in base64 for addresses": lambda text: base64.urlsafe_b64encode(text.encode()).decode(),
    "in base64 behind a user": lambda text: in_base64(f"admin:{text}"),
    "in base64 behind another": lambda text: in_base64(f"me:{text}:more"),
    "in hexadecimal": lambda text: text.encode().hex(),
    "in capital hexadecimal": lambda text: text.encode().hex().upper(),
}


def leaks(text: str, secret: str) -> bool:
    """Whether any way to write the secret, but for what its neighbours have a part in, is in the text."""
    return any(way(secret).strip("'\"=")[1:-2] in text for way in WRITTEN.values())


@pytest.mark.parametrize("way", WRITTEN)
@settings(max_examples=30)
@given(secret=SECRETS, before=AROUND, after=AROUND)
def test_a_secret_is_found_however_it_is_written(way: str, secret: str, before: str, after: str) -> None:
    written = WRITTEN[way](secret)
    found = redactor(secret)(f"{before} {written} {after}")
    assert BLOT in found
    assert not leaks(found.replace(before, "").replace(after, ""), secret) or leaks(f"{before}{after}{BLOT}", secret)


@pytest.mark.parametrize("way", WRITTEN)
def test_one_with_all_that_is_escaped_somewhere(way: str) -> None:
    found = redactor(SECRET)(f"token={WRITTEN[way](SECRET)}; and more")
    assert BLOT in found
    assert not leaks(found, SECRET)
    assert found.endswith("and more")


@given(secret=SECRETS, text=st.text(max_size=200))
def test_what_holds_no_secret_stays_as_it_is(secret: str, text: str) -> None:
    if not any(part in text for part in (secret[:4], secret[-4:])) and not any(c in text for c in "%\\&") and len(text) < SHORTEST:
        assert redactor(secret)(text) == text


@given(secret=SECRETS, pieces=st.lists(st.integers(0, 40), max_size=6), before=AROUND, after=AROUND)
def test_one_that_is_printed_in_pieces_is_found(secret: str, pieces: list[int], before: str, after: str) -> None:
    whole, cuts = f"{before}{secret}{after}", sorted({0, *pieces, 10**6})
    lines = Lines(redactor(secret))
    written = "".join(lines.add(whole[a:b]) for a, b in pairwise(cuts)) + lines.rest()
    assert secret not in written or secret in before + after
    assert written == redactor(secret)(whole) or "\n" in whole


def test_without_secrets_nothing_is_held_back() -> None:
    lines = Lines(Redactor())
    assert [lines.add("a"), lines.add("b\nc"), lines.rest()] == ["a", "b\nc", ""]


def test_what_is_held_back_waits_for_the_end_of_its_line() -> None:
    known = Redactor()
    lines = Lines(known)
    assert lines.add("loss ") == "loss "
    known.add("hunter2-hunter2")
    assert [lines.add("a"), lines.add("b\nc"), lines.add("d\r"), lines.add("e"), lines.rest()] == ["", "ab\n", "cd\r", "", "e"]


def test_a_line_without_an_end_is_not_held_for_ever() -> None:
    secret = "hunter2-hunter2"
    lines = Lines(redactor(secret))
    written = [lines.add(f"{'.' * 100}{secret}") for _ in range(2 * LONGEST_LINE // 100)] + [lines.rest()]
    assert max(map(len, written)) <= LONGEST_LINE
    whole = "".join(written)
    assert "hunter" not in whole
    assert whole.count(".") == 2 * LONGEST_LINE // 100 * 100


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("key 0123456789abcdefghijklmnop!", "key ***!"),
        ("key 0123456789abcdefgh…", "key ***…"),  # cut off behind half of it
        ("key ...89abcdefghijklmnop", "key ...***"),
        ("key 0123456...", "key 0123456..."),  # of which nobody can say what it was
        ("0123456789abcdefghijklmnop0123456789abcdefghijklmnop", "******"),
    ],
)
def test_half_of_a_secret_is_one(text: str, shown: str) -> None:
    assert redactor("0123456789abcdefghijklmnop")(text) == shown


def test_each_line_of_a_key_is_a_secret() -> None:
    key = "-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQ\nEFAASCBKcwggSjAgEAAoIBAQC7\n-----END KEY-----"
    assert redactor(key)("bad line: MIIEvQIBADANBgkqhkiG9w0BAQ") == "bad line: ***"
    assert redactor(key)(f"<{key}>") == "<***>"


def test_a_secret_within_another_spoils_neither() -> None:
    known = redactor("hunter2", "hunter2-and-more-of-it")
    assert known("hunter2-and-more-of-it hunter2") == "*** ***"


@pytest.mark.parametrize(
    ("name", "value", "hides"),
    [
        ("MLFLOW_TRACKING_PASSWORD", "correct-horse", True),
        ("MLFLOW_TRACKING_TOKEN", "correct-horse", True),
        ("MLFLOW_FLASK_SERVER_SECRET_KEY", "correct-horse", True),
        ("AWS_SECRET_ACCESS_KEY", "correct-horse", True),
        ("AWS_SESSION_TOKEN", "correct-horse", True),
        ("RAY_AUTH_TOKEN", "correct-horse", True),
        ("PGPASSWORD", "correct-horse", True),
        ("WANDB_API_KEY", "correct-horse", True),
        ("hf_token", "correct-horse", True),
        ("MLFLOW_TRACKING_URI", "http://me:correct-horse@host:1", True),
        ("MLFLOW_TRACKING_USERNAME", "correct-horse", False),  # a name, and no secret
        ("TOKENIZERS_PARALLELISM", "correct-horse", False),
        ("MY_TOKEN", "true", False),  # too short to be one, or to be found
    ],
)
def test_the_environments_own_secrets(name: str, value: str, hides: bool) -> None:
    known = Redactor()
    known.add_environment({name: value, "PATH": "/bin"})
    assert known.shows("it is correct-horse") is hides
    assert not known.shows("/bin true")


def test_a_forked_child_neither_waits_for_its_parents_threads_nor_writes_what_they_began() -> None:
    lines = Lines(redactor("hunter2-hunter2"))
    lines.add("begun ")
    with lines._lock:
        child = os.fork()
        if child == 0:
            written = lines.add("hunter2-hunter2 in the child\n") + lines.rest()
            os._exit(0 if written == "*** in the child\n" else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert lines.add("and ended\n") == "begun and ended\n"


def test_threads_that_print_at_once_lose_nothing_and_show_nothing() -> None:
    secret, written = "hunter2-hunter2", []
    lines = Lines(redactor(secret))
    threads = [threading.Thread(target=lambda: [written.append(lines.add(f"<{secret}>\n")) for _ in range(300)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert "".join(written) + lines.rest() == 1200 * "<***>\n"


def test_a_stream_hides_and_hands_on() -> None:
    under = io.StringIO()
    stream = Redacted(under, redactor("hunter2-hunter2"))
    for piece in ("a hunter2", "-hunter2 b\n", "rest"):
        stream.write(piece)
    assert under.getvalue() == "a *** b\n"
    stream.finish()
    assert under.getvalue() == "a *** b\nrest"


def test_prints_are_hidden_within_and_streams_are_back_behind(capsys: pytest.CaptureFixture[str]) -> None:
    hidden.add("hunter2-hunter2")
    before = sys.stdout, sys.stderr
    with redacted():
        print("out", "hunter2-hunter2")
        print("err hunter2-hunter2", end="", file=sys.stderr)
    assert (sys.stdout, sys.stderr) == before
    assert capsys.readouterr() == ("out ***\n", "err ***")


@pytest.mark.parametrize(
    ("state", "place"),
    [
        ({"epoch": 1, "weights": [1.0]}, ""),
        ({"settings": {"token": "hunter2-hunter2"}}, "settings['token']"),
        ({"seen": ["a", ("b", "Bearer hunter2-hunter2")]}, "seen[1][1]"),
        ({"cache": {"hunter2-hunter2": 1}}, "a key of cache"),
        ({"hunter2-hunter2": 1}, "a key of the state"),
        ({"coded": "aHVudGVyMi1odW50ZXIy"}, "coded"),
    ],
)
def test_where_in_a_state_a_secret_is(state: dict[str, object], place: str) -> None:
    assert redactor("hunter2-hunter2").place_in(state) == place
    assert Redactor().place_in(state) == ""


def test_a_state_that_holds_itself_is_looked_through_once() -> None:
    state: dict[str, object] = {"text": "x"}
    state["self"] = state
    assert redactor("hunter2-hunter2").place_in(state) == ""


# What may refer to a secret


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("nothing", []),
        ("$HOME {env:X} $(env:X)", []),
        ("${env:TOKEN}", [Reference("env", "TOKEN")]),
        ("a${env:_a1}b${file:/run/secrets/my key}c", [Reference("env", "_a1"), Reference("file", "/run/secrets/my key")]),
    ],
)
def test_references_in_a_text(text: str, found: list[Reference]) -> None:
    assert references.references(text) == found
    assert references.mistake(text) == ""
    assert references.is_reference(text) is (len(found) == 1 and str(found[0]) == text)
    assert all(str(reference) in text for reference in found)


MALFORMED = [
    "${", "${}", "${TOKEN}", "${env:}", "${env:1A}", "${env:A-B}", "${env: A}", "${env:A", "${ENV:A}", "${vault:secret/a}", "${file:}",
    "${file:a/b}", "${file:~/a}", "${file://host/../a}", "${file:/a/../b}", "${file:/a\tb}", "${file:/${env:A}}", "${env:${env:A}}",
    "$${env:A", "ok ${env:A} then ${env", "${exec:id}", "${file:C:/a}", "${env:Ä}",
]  # fmt: skip


@pytest.mark.parametrize("text", MALFORMED)
def test_malformed_references_say_what_is_allowed(text: str) -> None:
    said = references.mistake(text)
    assert "${env:NAME}" in said or "no `..`" in said


SPEC = """name: secrets
trainer: {name: mlp, settings: {dataset: fashion-mnist}}
objective: {metric: val_accuracy, direction: maximize}
space:
  learning_rate: {type: float, low: 1e-4, high: 1e-1, log: true}
budget: {trials: 3}
"""


def spec_problems(text: str) -> list[str]:
    with pytest.raises(SpecError) as refused:
        parse_spec(text, "a.yaml")
    return str(refused.value).splitlines()


@pytest.mark.parametrize(
    ("old", "new", "place"),
    [
        ("name: secrets", "name: ${env:A}", "a.yaml:1:7: name"),
        ("name: mlp", "name: '${env:A}'", "a.yaml:2:17: trainer.name"),
        ("metric: val_accuracy", "metric: '${env:A}'", "a.yaml:3:21: objective.metric"),
        ("type: float", "type: '${env:A}'", "a.yaml:5:25: space.learning_rate.type"),
        ("low: 1e-4", "low: '${env:A}'", "a.yaml:5:37: space.learning_rate.low"),
        ("trials: 3}", "trials: 3}\nsampler: {name: '${file:/a}'}", "a.yaml:7:17: sampler.name"),
        ("trials: 3}", "trials: 3}\ntracking: {experiment: '${env:A}'}", "a.yaml:7:24: tracking.experiment"),
        ("trials: 3}", "trials: 3}\nstart: [{learning_rate: '${env:A}'}]", "a.yaml:7:25: start[0].learning_rate"),
        ("trials: 3}", "trials: '${env:A}'}", "a.yaml:6:18: budget.trials"),
        ("trials: 3}", "trials: 3, time: '${env:A}'}", "a.yaml:6:27: budget.time"),
        ("trials: 3}", "trials: 3}\ntracking: {uri: '${vault:a}'}", "a.yaml:7:17: tracking.uri"),
        ("trials: 3}", "trials: 3}\ntracking: {uri: '${env:A}://host'}", "a.yaml:7:17: tracking.uri"),
        ("dataset: fashion-mnist", "dataset: '${env:A}'", "a.yaml:2:42: trainer.settings.dataset"),
        ("dataset: fashion-mnist", "dataset: fashion-mnist, batch_size: '${env:A}'", "a.yaml:2:69: trainer.settings.batch_size"),
        ("dataset: fashion-mnist", "dataset: file, target: y, path: '${env:A}'", "a.yaml:2:65: trainer.settings.path"),
        ("dataset: fashion-mnist", "dataset: fashion-mnist, widths: '${env:A}'", "a.yaml:2:65: trainer.settings.widths"),
    ],
)
def test_a_reference_elsewhere_is_refused_where_it_stands(old: str, new: str, place: str) -> None:
    found = spec_problems(SPEC.replace(old, new))
    assert len(found) == 1
    assert found[0].startswith(f"{place}: ")


def test_a_spec_keeps_the_reference() -> None:
    text = SPEC + "tracking: {uri: 'postgresql://hpo:${env:PGPASSWORD}@db/mlflow'}"
    spec = parse_spec(text, "a.yaml")
    assert spec.tracking.uri == "postgresql://hpo:${env:PGPASSWORD}@db/mlflow"
    assert spec_from_dict(spec.to_dict()) == spec


@pytest.mark.parametrize(
    "uri", ["http://me:hunter2@host:5000", "postgresql://me:a@b/c@host/db", "postgresql://host/db?user=me&password=hunter2"]
)
def test_a_password_in_a_spec_is_refused_and_not_shown(uri: str) -> None:
    (problem,) = spec_problems(SPEC + f"tracking: {{uri: '{uri}'}}")
    assert problem.startswith("a.yaml:7:17: tracking.uri: ")
    assert "${env:NAME}" in problem
    assert "hunter2" not in problem
    assert "a@b" not in problem


def test_a_study_of_an_earlier_version_with_a_password_can_still_be_read() -> None:
    plain = parse_spec(SPEC, "a.yaml").to_dict()
    plain["tracking"]["uri"] = "http://me:hunter2@host:5000"
    assert spec_from_dict(plain).tracking.uri == "http://me:hunter2@host:5000"


# How a secret is read


def test_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_SECRET", "hunter2-hunter2")
    assert references.revealed("Bearer ${env:A_SECRET}!") == "Bearer hunter2-hunter2!"
    assert hidden("hunter2-hunter2") == BLOT
    assert references.revealed_arguments({"token": "${env:A_SECRET}", "depth": 2, "name": "x"}) == {
        "token": "hunter2-hunter2",
        "depth": 2,
        "name": "x",
    }


@pytest.mark.parametrize(("content", "secret"), [("hunter2-a", "hunter2-a"), ("hunter2-b\n", "hunter2-b"), ("hunter2-c\r\n", "hunter2-c")])
def test_a_file(content: str, secret: str, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_bytes(content.encode())
    file.chmod(0o640)
    link = tmp_path / "link"  # as Kubernetes makes them
    link.symlink_to(file)
    assert references.revealed(f"${{file:{link}}}") == secret
    assert hidden(f"<{secret}>") == "<***>"


def nothing(_: Path) -> None:
    """No file."""


def folder(path: Path) -> None:
    path.mkdir(mode=0o700)


def writer(content: bytes, mode: int = 0o600) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_bytes(content)
        path.chmod(mode)

    return write


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (nothing, "cannot be read (No such file or directory)"),
        (folder, "cannot be read (Is a directory)"),
        (lambda path: os.mkfifo(path, 0o600), "is no file"),
        (writer(b"hunter2-hunter2", 0o644), "is open to everybody (mode 0644); chmod 600"),
        (writer(b"hunter2-hunter2", 0o602), "is open to everybody (mode 0602)"),
        (writer(b"x" * 20_000), "is larger than 16 KiB"),
        (writer(b"\xff" * 20), "is not UTF-8 text"),
        (writer(b"12345"), "has fewer than 6 characters"),
        (writer(b"\n"), "has fewer than 6 characters"),
    ],
)
def test_a_file_that_is_none_names_the_reference_and_the_host(make: Callable[[Path], None], why: str, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    make(file)
    with pytest.raises(SecretError) as refused:
        references.revealed(f"a ${{file:{file}}}")
    said = str(refused.value)
    assert said.startswith(f"${{file:{file}}} on {socket.gethostname()} {why}")
    assert "hunter2" not in said
    assert "12345" not in said


@pytest.mark.parametrize(("value", "why"), [(None, "is not set"), ("", "has fewer than"), ("12345", "has fewer than")])
def test_a_variable_that_holds_no_secret(value: str | None, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("A_SECRET", raising=False)
    if value is not None:
        monkeypatch.setenv("A_SECRET", value)
    with pytest.raises(SecretError) as refused:
        references.revealed("${env:A_SECRET}")
    assert str(refused.value).startswith(f"${{env:A_SECRET}} on {socket.gethostname()} {why}")
    assert "12345" not in str(refused.value)


# Addresses


@pytest.mark.parametrize(
    ("uri", "secret", "address"),
    [
        ("${env:A_SECRET}", "http://me:hunter2@host:5000", "http://me:hunter2@host:5000"),
        ("postgresql://hpo:${env:A_SECRET}@db/mlflow", "p@ss/w:rd?%", "postgresql://hpo:p%40ss%2Fw%3Ard%3F%25@db/mlflow"),
        ("http://${env:A_SECRET}:x@host", "hunter2", "http://hunter2:x@host"),
    ],
)
def test_an_address_with_its_secrets(uri: str, secret: str, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_SECRET", secret)
    assert tracking.address(uri) == address
    said = f"cannot connect to {address} with {secret}"
    assert secret not in tracking.without_secrets(said, uri)
    assert address not in tracking.without_secrets(said, uri)
    assert secret not in tracking.in_short(f"API request to {address} failed (by X('[Errno 111] refused'))", uri)


def test_the_password_in_an_address_that_is_a_secret_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_SECRET", "http://me:hunter%402@host:5000")
    tracking.address("${env:A_SECRET}")
    assert hidden("401 for me:hunter%402 or hunter@2") == "401 for me:*** or ***"


@pytest.mark.parametrize("value", ["no-address-at-all", "ftp://hunter2@host", "http://", "http://[hunter2", "http://host:hunter2"])
def test_an_address_that_is_none_is_named_and_not_shown(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_SECRET", value)
    with pytest.raises(SecretError, match=r"^\$\{env:A_SECRET\} holds no address of MLflow") as refused:
        tracking.address("${env:A_SECRET}")
    assert value not in str(refused.value)


@pytest.mark.parametrize("value", ["ev il", "a..b", "a/b", "-x"])
def test_an_address_is_one_with_its_secrets_too(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_SECRET", value + "-s3cret")
    with pytest.raises(SecretError) as refused:
        tracking.address("http://${env:A_SECRET}:5000")
    assert str(refused.value).startswith("http://${env:A_SECRET}:5000, with what its references hold, ")
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("${env:URI}", "${env:URI}"),
        ("http://me:${env:A}@host:5000", "http://me:${env:A}@host:5000"),
        ("http://${env:U}:${file:/a@b:c}@host", "http://${env:U}:${file:/a@b:c}@host"),
        ("http://me:x${env:A}@host:5000", "http://***@host:5000"),  # a part of it is no reference
        ("http://me:${env:A}@hunter2@host:5000", "http://***@host:5000"),
        ("postgresql://h/db?password=${env:A}&sslmode=require", "postgresql://h/db?password=${env:A}&sslmode=require"),
        ("postgresql://h/db?password=${env:A}b", "postgresql://h/db?password=***"),
    ],
)
def test_a_reference_is_shown_and_a_password_is_not(uri: str, shown: str) -> None:
    assert tracking.public(uri) == shown
    assert tracking.uri_mistake(uri) == "" or "***" in shown
    assert "hunter2" not in tracking.uri_mistake(uri)


@pytest.mark.parametrize("uri", ["http://me:hunter2/x@host", "http://me:hunter2[@host", "http://host:99999"])
def test_what_is_said_of_an_address_does_not_quote_it(uri: str) -> None:
    said = tracking.uri_mistake(uri)
    assert said.startswith("is no address")
    assert "hunter2" not in said


def test_no_command_line_of_ours_holds_more_than_harmless_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "AWS_SECRET_ACCESS_KEY", "RAY_AUTH_TOKEN"):
        monkeypatch.setenv(name, "hunter2-hunter2")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:hunter2-hunter2@host")
    words = tracking.ui_command(tmp_path)
    assert "hunter2" not in " ".join(words)
    settings = {word.partition("=")[0] for word in words if word.startswith(("MLFLOW_", "PYTHON"))}
    assert settings == tracking.environment().keys()
    assert not [name for name in tracking.environment() if name.endswith(("PASSWORD", "TOKEN", "KEY", "URI"))]
