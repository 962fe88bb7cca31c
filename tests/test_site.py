"""What an operator says of his machines, the node command's words, the token's file, and how searches share a cluster."""

from __future__ import annotations

import os
import shutil
import stat
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from hpo.capacity import Capacity, CapacityError, place
from hpo.cli import cli
from hpo.engine import ray_node, ray_token
from hpo.engine.ray_node import Node
from hpo.engine.ray_token import TokenError
from hpo.ground import Ground, check_storage, ground
from hpo.problem import SpecError
from hpo.sections import Resources
from hpo.sharing import Demand, shares
from hpo.site import site
from hpo.spec import load_spec

TWO = [Capacity(8, 2, {}, "a"), Capacity(4, 0, {"a100": 2}, "b")]


@pytest.fixture(autouse=True)
def _no_site(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("HPO_CONFIG", "RAY_ADDRESS", ray_token.TOKEN, ray_token.TOKEN_FILE, ray_token.MODE):
        monkeypatch.setenv(name, "")  # so that what a test sets itself goes with it
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("HOME", str(tmp_path))


def _write(tmp_path: Path, text: str) -> None:
    file = tmp_path / "config" / "hpo" / "config.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(text)


def test_the_option_goes_before_the_environment_and_that_before_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert site().cluster.address is None
    _write(tmp_path, "cluster: {address: '10.0.0.1:6379', storage: /shared, jobs: 'http://10.0.0.1:8265'}")
    assert (site().cluster.address, site().cluster.storage) == ("10.0.0.1:6379", "/shared")
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.2:6379")
    assert site().cluster.address == "10.0.0.2:6379"
    assert site("auto").cluster.address == "auto"
    assert site("local").cluster.address is None  # a Ray of its own, whatever else says
    assert site("local").cluster.storage == "/shared"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cluster: {adress: auto}", r"config.yaml:1:11: cluster.adress: unknown key; did you mean `address`"),
        ("claster: {}", r"unknown key; did you mean `cluster`"),
        ("cluster: {address: here}", "is no address of a Ray cluster; write auto"),
        ("cluster: {address: 'ray://a:10001'}", "hpo launch --detach"),
        ("cluster: {jobs: 'file:///etc/passwd'}", "the address of Ray's jobs is http://HOST:8265"),
        ("cluster: {jobs: 'http://me:secret@a:1'}", "the address of Ray's jobs is"),
        ("- cluster", "a mapping is needed"),
    ],
)
def test_mistakes_in_the_file_have_a_place(text: str, message: str, tmp_path: Path) -> None:
    _write(tmp_path, text)
    with pytest.raises(SpecError, match=message):
        site()


@pytest.mark.parametrize("address", ["here", "a:0", "a:65536", "a:b:1", "http://a:1", "a", "../a:1", "a:1 b:2", "ray://a:1", ""])
def test_what_is_no_address_is_refused(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SpecError):
        site(address)
    if address:
        monkeypatch.setenv("RAY_ADDRESS", address)
        with pytest.raises(SpecError, match="RAY_ADDRESS"):
            site()


def test_a_file_that_is_named_must_be_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HPO_CONFIG", str(tmp_path / "none.yaml"))
    with pytest.raises(SpecError, match="not found"):
        site()


@pytest.mark.parametrize(
    ("wanted", "on", "slots"),
    [
        (Resources(1, 0), (8, 4), 12),
        (Resources(3, 0), (2, 1), 3),
        (Resources(1, 0.25), (8, 0), 8),
        (Resources(1, "auto"), (2, 0), 2),
        (Resources(0.1, 0), (80, 40), 100),  # ten tenths are one; no more than there are trials
        (Resources(1, 0, {"a100": 0.5}), (0, 4), 4),
        (Resources(1, 0, max_concurrent=5), (8, 4), 5),
    ],
)
def test_trials_spread_over_machines(wanted: Resources, on: tuple[int, ...], slots: int) -> None:
    found = place(wanted, TWO, 100)
    assert (found.on, found.slots) == (on, slots)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (Resources(9, 0), "the largest of 2 machines has 8; ask for at most 8"),
        (Resources(1, 4), "no machine of 2 has more than 2"),
        (Resources(1, 0, {"a100": 3}), "resources.custom.a100: a trial asks for 3, and no machine has more than 2"),
        (Resources(1, 0, {"a1000": 1}), "did you mean `a100`"),
        (Resources(1, 1, {"a100": 1}), "no machine of 2 has all that a trial asks for at once"),
    ],
)
def test_what_fits_on_no_machine_is_refused_at_once(wanted: Resources, message: str) -> None:
    with pytest.raises(CapacityError, match=message):
        place(wanted, TWO, 100)


def test_on_several_nodes_checkpoints_need_a_storage() -> None:
    spec = load_spec("search_spaces/digits.yaml")
    check_storage(spec, Ground((TWO[0],), "a:1"))
    with pytest.raises(SpecError, match=r"checkpoints.storage: this cluster has 2 nodes \(a, b\)"):
        check_storage(spec, Ground(tuple(TWO), "a:1"))


def test_without_an_address_the_ground_is_this_machine() -> None:
    assert ground(site()).address is None
    assert [machine.name for machine in ground(site()).there] == ["this machine"]


def test_the_heads_token_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    path = ray_token.have_or_make()
    assert path == tmp_path / ".ray" / "auth_token"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    token = path.read_text()
    assert len(token) == 2 * ray_token.BYTES
    path.chmod(0o644)  # as Ray makes it
    assert ray_token.have_or_make() == path
    assert (path.read_text(), stat.S_IMODE(path.stat().st_mode)) == (token, 0o600)


def test_a_private_token_is_nobody_elses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that launches by itself and then joins a cluster, or becomes a head, does so with the cluster's token."""
    monkeypatch.setenv(ray_token.TOKEN, "")  # set, and no token
    ray_token.have_own()
    private = os.environ[ray_token.TOKEN]
    assert len(private) == 2 * ray_token.BYTES
    ray_token.have_own()
    assert os.environ[ray_token.TOKEN] == private  # for the finals' Ray, too
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("f" * 64)
    ray_token.have_given()
    assert ray_token.TOKEN not in os.environ
    monkeypatch.setenv(ray_token.TOKEN, "given")  # by the user: that stays
    ray_token.have_own()
    ray_token.have_given()
    assert os.environ[ray_token.TOKEN] == "given"


def test_who_joins_needs_a_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TokenError, match=r"no token of the Ray cluster: neither RAY_AUTH_TOKEN nor .*auth_token is there"):
        ray_token.have_given()
    (tmp_path / "token").write_text("")
    monkeypatch.setenv(ray_token.TOKEN_FILE, str(tmp_path / "token"))
    with pytest.raises(TokenError, match="is empty"):
        ray_token.have_given()
    (tmp_path / "token").write_text("f" * 64)
    ray_token.have_given()
    assert stat.S_IMODE((tmp_path / "token").stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("node", "words"),
    [
        (Node(ip="10.0.0.1"), {"--head", "--port=6379", "--include-dashboard=false", "--node-ip-address=10.0.0.1"}),
        (Node(jobs=True), {"--head", "--include-dashboard=true", "--dashboard-host=127.0.0.1", "--dashboard-port=8265"}),
        (Node("10.0.0.1:6379", cpus=3, gpus=0, custom={"a": 2.0}), {"--address=10.0.0.1:6379", "--num-cpus=3", '--resources={"a": 2.0}'}),
    ],
)
def test_a_node_is_ray_start_that_strangers_cannot_use(node: Node, words: set[str]) -> None:
    found = ray_node.command(node)
    assert words <= set(found)
    assert "--block" in found
    assert not any("token" in word for word in found)  # a process list shows it to everybody
    assert ("--head" in found) == (node.joins is None)
    assert ray_node.environment()["RAY_AUTH_MODE"] == "token"


def test_the_jobs_of_a_node_find_hpo_and_a_home_that_lasts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HPO_HOME", "mine")
    found = ray_node.environment()
    assert found["HPO_HOME"] == str(tmp_path / "mine")
    assert shutil.which("hpo", path=found["PATH"]) == str(Path(sys.executable).with_name("hpo"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give either --head"),
        (["--head", "--address", "a:1"], "give either --head"),
        (["--address", "auto"], "is no HOST:PORT"),
        (["--address", "a:1", "--jobs"], "--jobs is for the head"),
        (["--head", "--resource", "a100"], "write NAME=AMOUNT"),
        (["--head", "--resource", "a100=-1"], "write NAME=AMOUNT"),
        (["--head", "--resource", "a100=0.5"], "with a whole number"),
        (["--head", "--resource", "CPU=2"], "use --cpus and --gpus"),
        (["--head", "--resource", "a=1", "--resource", "a=2"], "names a twice"),
        (["--head", "--ip", "nonsense"], "'nonsense' is no IP address"),
        (["--head", "--port", "0"], "1<=x<=65535"),
        (["--head", "--port", "16379"], "16379 is one of the ports of Ray's workers (10001 to 19999)"),
    ],
)
def test_wrong_words_start_no_node(words: list[str], message: str) -> None:
    found = CliRunner().invoke(cli, ["node", *words])
    assert found.exit_code == 2
    assert message in found.output


@pytest.mark.parametrize(
    ("demands", "slots", "expected"),
    [
        ({}, 4, {}),
        ({"a": Demand("ann", 9)}, 4, {"a": 4}),
        ({"a": Demand("ann", 9), "b": Demand("bob", 9)}, 4, {"a": 2, "b": 2}),
        ({"a": Demand("ann", 9), "b": Demand("bob", 1)}, 4, {"a": 3, "b": 1}),  # what one does not need is the other's
        ({"a": Demand("ann", 9), "b": Demand("bob", 9), "c": Demand("bob", 9)}, 8, {"a": 4, "b": 2, "c": 2}),  # owners first
        ({"a": Demand("ann", 9), "b": Demand("bob", 9)}, 3, {"a": 2, "b": 1}),
        ({"a": Demand("ann", 9), "b": Demand("bob", 9), "c": Demand("cem", 9)}, 2, {"a": 1, "b": 1, "c": 1}),  # the third is queued
        ({"a": Demand("ann", 0)}, 2, {"a": 0}),
    ],
)
def test_searches_share_a_cluster_fairly(demands: Mapping[str, Demand], slots: int, expected: dict[str, int]) -> None:
    assert shares(demands, slots) == expected


@given(
    st.dictionaries(st.text("abcdef", min_size=1, max_size=2), st.builds(Demand, st.sampled_from("xyz"), st.integers(0, 9))),
    st.integers(0, 40),
)
def test_no_slot_is_left_while_somebody_wants_it_and_nobody_gets_more_than_he_wants(demands: dict[str, Demand], slots: int) -> None:
    found = shares(demands, slots)
    assert found.keys() == demands.keys()
    assert all(found[name] <= demands[name].slots for name in demands)
    wanted = sum(demand.slots for demand in demands.values())
    assert sum(found.values()) >= min(slots, wanted)
    for name, demand in demands.items():  # envy-free: who is short of slots sees no owner with two more than his own
        if found[name] < demand.slots and sum(found.values()) <= slots:
            of = {owner: sum(found[n] for n in demands if demands[n].owner == owner) for owner in "xyz"}
            assert all(of[other] <= of[demand.owner] + 1 for other in "xyz")
