"""`hpo data`: what it says of each dataset, for people and machines, and its exit codes."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from hpo import data
from hpo.cli import cli
from hpo.preparing import check_surroundings, completed, trainer_of
from hpo.problem import SpecError
from hpo.spec import Spec, load_spec
from tests.conftest import ROOT, run_hpo

FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


@pytest.fixture(autouse=True)
def own_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MNIST and SST-2 without its test labels under $HPO_DATA, IMDB in the cache, nothing else but Python packages."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HPO_DATA", str(tmp_path / "shared"))
    for file in (*(f"mnist/{name}.gz" for name in FILES), "sst2/train.tsv.gz", "sst2/dev.tsv.gz"):
        put(tmp_path / "shared" / file)
    put(tmp_path / "cache" / "hpo" / "imdb" / "aclImdb_v1.tar.gz")


def put(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(b""))


def hpo(*words: str) -> Result:
    return CliRunner().invoke(cli, ["data", *words])


def test_list_says_of_every_dataset_where_it_is_and_what_to_beware_of(tmp_path: Path) -> None:
    listed = {row["name"]: row for row in json.loads(hpo("list", "--json").output)}
    assert list(listed) == list(data.DATASETS)
    places = {name: row["place"] for name, row in listed.items()}
    assert places | {"fashion-mnist": None} == {
        "digits": "Python package",
        "fashion-mnist": None,
        "mnist": "$HPO_DATA",
        "imdb": "cache",
        "sst2": "$HPO_DATA",
        "proben1": None,
    }
    assert listed["mnist"]["path"] == str(tmp_path / "shared" / "mnist")
    assert listed["sst2"]["without"] == ["test-labeled.tsv"]
    assert all(row["licence"] and row["splits"] and row["traps"] for row in listed.values())


def test_list_for_people_says_the_same() -> None:
    said = hpo("list")
    assert said.exit_code == 0
    for known in data.DATASETS.values():
        for text in (known.name, known.licence, known.splits, known.traps):
            assert text in said.output
    assert "not on this machine: hpo data get proben1" in said.output
    assert "test-labeled.tsv: GLUE publishes the test sentences without labels" in said.output


def test_path_prints_the_folder_and_opens_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "shared" / "mnist"
    assert hpo("path", "mnist").output == f"{folder}\n"  # its files are empty
    assert json.loads(hpo("path", "mnist", "--json").output)["path"] == str(folder)


@pytest.mark.parametrize("command", ["path", "get"])
def test_an_unknown_name_is_a_mistake_in_the_command(command: str) -> None:
    said = hpo(command, "proben")
    assert said.exit_code == 2
    assert "no dataset is called 'proben'; did you mean `proben1`?" in said.output


def test_exit_codes_and_all_ways_where_it_is_missing_or_damaged(tmp_path: Path) -> None:
    missing = run_hpo(tmp_path, "data", "path", "proben1")
    assert (missing.code, missing.out) == (1, "")
    for way in ("HPO_DATA", "hpo data get proben1", "proben1.tar.xz or proben1-1c63a40.tar.gz", "github.com/jeffheaton/proben1"):
        assert way in missing.err
    damaged = run_hpo(tmp_path, "data", "get", "mnist")
    assert (damaged.code, damaged.out) == (1, "")
    assert "train-images-idx3-ubyte.gz: expected 47040016 bytes with sha256 " in damaged.err
    assert "found 0 bytes" in damaged.err
    assert "run `hpo data get mnist`" in damaged.err


def test_get_digits_needs_no_network() -> None:
    assert json.loads(hpo("get", "digits", "--json").output)["licence"] == "CC BY 4.0"
    assert "(licence: CC BY 4.0)" in hpo("get", "digits").output


def spec(**settings: object) -> Spec:
    """The digits search, of other data."""
    overrides = [f"trainer.settings.{name}={value}" for name, value in settings.items()]
    found = load_spec(ROOT / "search_spaces" / "digits.yaml", overrides=overrides)
    return completed(found, trainer_of(found))


def test_a_users_file_gets_an_absolute_path_at_launch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for path, target, expected in (("x.csv", "y", "y"), ("sub/x.parquet", "y", "y"), ("x.npy", "y.npy", str(tmp_path / "y.npy"))):
        settings = spec(dataset="file", path=path, target=target).trainer.settings
        assert (settings["path"], settings["target"]) == (str(tmp_path / path), expected)
    assert "path" not in spec(dataset="digits").trainer.settings


@pytest.mark.parametrize(
    ("settings", "error", "said"),
    [
        ({"dataset": "file", "path": "none.csv", "target": "y"}, data.DataError, "/none.csv is not there"),
        (
            {"dataset": "file", "path": "~nobody-of-this-name/x.csv", "target": "y"},
            data.DataError,
            "nobody-of-this-name/x.csv is not there",
        ),
        ({"dataset": "file", "path": "x.csv", "target": "kin"}, data.DataError, "no column is called 'kin'; did you mean `kind`?"),
        ({"dataset": "file", "path": "short.csv", "target": "kind"}, data.DataError, "2 rows are too few"),
        ({"dataset": "file", "path": "x.csv", "target": "size"}, SpecError, "size holds values, not classes"),
        ({"dataset": "proben1", "problem": "cancr1"}, SpecError, "trainer.settings.problem: problem 'cancr1' .*did you mean `cancer`"),
        ({"dataset": "proben1"}, data.DataError, "proben1 is not on this machine"),
    ],
)
def test_a_mistake_in_the_data_is_an_error_before_anything_starts(
    settings: dict[str, object], error: type[Exception], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = "".join(f"{i},{'uv'[i % 2]},{i / 7:.3f}\n" for i in range(20))
    (tmp_path / "x.csv").write_text(f"a,kind,size\n{rows}", encoding="utf-8")
    (tmp_path / "short.csv").write_text("a,kind\n1,u\n2,v\n", encoding="utf-8")
    check_surroundings(spec(dataset="file", path="x.csv", target="kind"))
    check_surroundings(spec(dataset="file", path="x.csv", target="size", loss="squared_error"))
    with pytest.raises(error, match=said):
        check_surroundings(spec(**settings))


def test_launch_ends_at_once_where_the_data_is_not(tmp_path: Path) -> None:
    words = ("launch", "search_spaces/digits.yaml", "--set", "trainer.settings.dataset=file", "--set", "trainer.settings.target=y")
    done = run_hpo(tmp_path / "home", *words, "--set", "trainer.settings.path=none.csv")
    assert (done.code, done.out) == (1, "")
    assert f"{ROOT / 'none.csv'} is not there" in done.err
    assert not (tmp_path / "home").exists()
