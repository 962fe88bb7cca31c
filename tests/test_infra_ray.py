"""The files for `ray up`: valid by Ray's and the clouds' own descriptions, closed to strangers; and that these checks can fail."""

from __future__ import annotations

import copy
import json
import logging
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import reduce
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.ray_clusters import mistakes, open_networks, sizes

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "infra" / "ray"
FILES = ("cluster", "aws", "gcp")
PAGE = (FOLDER / "README.md").read_text()
SHELLCHECK = Path(sys.executable).with_name("shellcheck")


def config(name: str) -> dict[str, Any]:
    return yaml.safe_load((FOLDER / f"{name}.yaml").read_text())


def changed(name: str, path: str, value: Any) -> dict[str, Any]:
    """The file with another value at `path`, None for none; a pair replaces text in what is there."""
    found = config(name)
    *way, last = (int(part) if part.lstrip("-").isdecimal() else part for part in path.split("|"))
    place = reduce(lambda inside, part: inside[part], way, found)
    if value is None:
        del place[last]
    elif isinstance(value, tuple):
        assert value[0] in place[last]
        place[last] = place[last].replace(*value)
    else:
        place[last] = value
    return found


def prepared(found: dict[str, Any]) -> dict[str, Any]:
    """As `ray up` fills it in and checks it."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    ready = prepare_config(copy.deepcopy(found))
    validate_config(ready)
    return ready


def test_these_are_all_the_files() -> None:
    assert {path.stem for path in FOLDER.glob("*.yaml")} == set(FILES)


@pytest.mark.parametrize("name", FILES)
def test_ray_takes_the_file_and_the_cluster_has_a_fixed_size(name: str) -> None:
    assert list(sizes(prepared(config(name)))) == []


@pytest.mark.parametrize("name", FILES)
def test_strangers_and_secrets_stay_out(name: str) -> None:
    assert list(mistakes(config(name))) == []
    for path in FOLDER.iterdir():
        assert open_networks(path.read_text()) == []


@pytest.mark.parametrize(
    ("name", "path", "value"),
    [
        ("aws", "provider|type", None),
        ("aws", "head_node_type", None),
        ("aws", "head_node_type", "boss"),
        ("aws", "max_workers", 3),
        ("aws", "max_workers", "4"),
        ("aws", "workers", 4),
        ("aws", "available_node_types|worker|node_config", None),
        ("aws", "available_node_types|worker|resources", {"CPU": 0.5}),
        ("gcp", "setup_commands", "make venv"),
        ("gcp", "auth|ssh_key", "~/.ssh/id"),
        ("cluster", "file_mounts", ["~/hpo"]),
        ("cluster", "max_workers", 1),
    ],
)
def test_ray_refuses_what_it_does_not_know(name: str, path: str, value: Any) -> None:
    import jsonschema

    with pytest.raises((jsonschema.ValidationError, ValueError, KeyError, TypeError, AttributeError, NotImplementedError)):
        prepared(changed(name, path, value))


@pytest.mark.parametrize(
    ("name", "path", "value"),
    [
        ("aws", "available_node_types|worker|min_workers", 0),
        ("gcp", "available_node_types|worker|min_workers", 3),
        ("gcp", "max_workers", 8),
        ("cluster", "min_workers", 1),
    ],
)
def test_a_cluster_that_would_grow_or_shrink_is_found(name: str, path: str, value: Any) -> None:
    assert list(sizes(prepared(changed(name, path, value)))) != []


HEAD, WORKER = "head_start_ray_commands|-1", "worker_start_ray_commands|-1"


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    ("path", "value", "why"),
    [
        (HEAD, ("RAY_AUTH_MODE=token", ""), "head: RAY_AUTH_MODE is not token"),
        (WORKER, ("RAY_AUTH_MODE=token", "RAY_AUTH_MODE=disabled"), "worker: RAY_AUTH_MODE is not token"),
        (HEAD, ("export RAY_AUTH_MODE=token", "# RAY_AUTH_MODE=token;export"), "head: RAY_AUTH_MODE is not token"),
        (
            HEAD,
            ("RAY_health_check_failure_threshold=5", "RAY_health_check_failure_threshold=50"),
            "head: RAY_health_check_failure_threshold",
        ),
        (HEAD, ("AUTOSCALER_METRIC_PORT=-1", ""), "head: AUTOSCALER_METRIC_PORT is not -1"),
        (HEAD, ("--include-dashboard=false", ""), "head: --include-dashboard=false differs"),
        (HEAD, ("--include-dashboard=false", "--include-dashboard=true"), "open to all: --include-dashboard=true"),
        (HEAD, ("--include-dashboard=false", "--include-dashboard=true --dashboard-host=0.0.0.0"), "open to all: 0.0.0.0"),
        (HEAD, ("--include-dashboard=false", "--include-dashboard=true --dashboard-host=10.0.0.1"), "open to all: --dashboard-host="),
        (WORKER, ("--disable-usage-stats", ""), "worker: --disable-usage-stats differs"),
        (WORKER, ("--disable-usage-stats", "--disable-usage-stats --ray-debugger-external"), "worker: --ray-debugger-external is none"),
        ("head_start_ray_commands|1", "true", "head: it starts without a token"),
        ("worker_start_ray_commands|1", ("chmod 600", "chmod 644"), "worker: it starts without a token"),
        ("worker_start_ray_commands|1", None, "worker: it starts without a token"),
        ("worker_start_ray_commands|2", None, "worker: not one ray start"),
        ("file_mounts|~/.ray/auth_token", None, "the token is not brought"),
        ("file_mounts|~/.ray/auth_token", "./token", "the token is not brought"),
        ("auth|ssh_private_key", "~/.ssh/id_ed25519", "the key that goes to the head"),
        ("setup_commands|0", f"export RAY_AUTH_TOKEN={'0a' * 32}", "a secret: 0a0a"),
        ("setup_commands|0", "export AWS_ACCESS_KEY_ID=AKIA" + "IOSFODNN7EXAMPLE", "a secret: AKIA"),
        ("setup_commands|0", "export MLFLOW_TRACKING_PASSWORD=letmein1", "a secret: PASSWORD=letmein1"),
    ],
)
def test_what_would_let_strangers_in_is_found(name: str, path: str, value: Any, why: str) -> None:
    found = list(mistakes(changed(name, path, value)))
    assert [mistake for mistake in found if mistake.startswith(why)], found


@pytest.mark.parametrize(
    ("name", "path", "value", "why"),
    [
        ("aws", "available_node_types|head|node_config|SecurityGroupIds", None, "head: no SecurityGroupIds"),
        ("aws", "available_node_types|worker|node_config|SecurityGroupIds", [], "worker: no SecurityGroupIds"),
        ("aws", "available_node_types|worker|node_config|SubnetIds", None, "worker: no SubnetIds"),
        ("aws", "available_node_types|head|node_config|IamInstanceProfile", None, "head: no IamInstanceProfile"),
        ("aws", "available_node_types|head|node_config|MetadataOptions|HttpTokens", "optional", "head: its role can be had"),
        ("aws", "available_node_types|head|node_config|BlockDeviceMappings|0|Ebs|Encrypted", False, "head: a disk"),
        ("aws", "available_node_types|worker|node_config|BlockDeviceMappings|0|Ebs|DeleteOnTermination", False, "worker: a disk"),
        ("aws", "provider|security_group", {"GroupName": "hpo"}, "Ray makes the security group"),
        ("gcp", "available_node_types|head|node_config|networkInterfaces", None, "head: Ray takes the first network"),
        ("gcp", "available_node_types|worker|node_config|tags|items", ["default"], "worker: the firewall's rules"),
        ("gcp", "available_node_types|worker|node_config|metadata|items|0", {}, "worker: whoever has a key in the project"),
        ("gcp", "available_node_types|head|node_config|shieldedInstanceConfig|enableSecureBoot", False, "head: it boots anything"),
        ("gcp", "available_node_types|worker|node_config|serviceAccounts", None, "worker: it may do more"),
        (
            "gcp",
            "available_node_types|worker|node_config|serviceAccounts|0|scopes|0",
            "https://www.googleapis.com/auth/cloud-platform",
            "worker: it may",
        ),
    ],
)
def test_what_a_cloud_would_leave_open_is_found(name: str, path: str, value: Any, why: str) -> None:
    found = list(mistakes(changed(name, path, value)))
    assert [mistake for mistake in found if mistake.startswith(why)], found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("--cidr 0.0.0.0/0", ["0.0.0.0/0"]),
        ('CidrIpv6: "::/0"', ["::/0"]),
        ("--source-ranges=128.0.0.0/1", ["128.0.0.0/1"]),
        ("--range=10.10.0.0/24", []),
        ("--cidr 198.51.100.7/32", []),
        ("infra/ray/README.md, 12/24", []),
    ],
)
def test_a_network_that_is_everybody_is_found(text: str, found: list[str]) -> None:
    assert open_networks(text) == found


def commands(found: dict[str, Any]) -> Iterator[str]:
    for key, value in found.items():
        if key.endswith("_commands"):
            yield from value


def checked(command: str) -> str:
    one_line = "--exclude=SC2016"  # what is in single quotes there is for another shell to expand
    done = subprocess.run(
        [SHELLCHECK, "--shell=bash", "--severity=style", one_line, "-"], input=f"{command}\n", capture_output=True, text=True, check=False
    )
    assert done.returncode in (0, 1), done.stderr
    return done.stdout


@pytest.mark.parametrize("name", FILES)
def test_every_command_is_sound(name: str) -> None:
    found = list(commands(config(name)))
    assert len(found) >= 9
    assert [said for command in found if (said := checked(command))] == []


def test_shellcheck_would_say_so_if_one_were_not() -> None:
    (start,) = (command for command in config("cluster")["worker_start_ray_commands"] if "ray start" in command)
    assert "SC2086" in checked(start.replace('"$RAY_HEAD_IP:6379"', "$RAY_HEAD_IP:6379"))


def test_the_head_of_a_list_is_reached_at_its_address_in_the_list() -> None:
    found = config("cluster")
    (start,) = (command for command in found["head_start_ray_commands"] if "ray start" in command)
    assert f"--node-ip-address={found['provider']['head_ip']} " in start
    assert found["provider"]["head_ip"] not in found["provider"]["worker_ips"]


def test_the_three_files_do_the_same_on_a_node() -> None:
    cluster, aws, gcp = map(config, FILES)
    for key in ("file_mounts", "rsync_exclude", "worker_setup_commands"):
        assert cluster[key] == aws[key] == gcp[key]
    assert aws["setup_commands"] == gcp["setup_commands"]
    assert cluster["setup_commands"] == aws["setup_commands"][1:]
    for kind in ("head", "worker"):
        assert aws[f"{kind}_start_ray_commands"] == gcp[f"{kind}_start_ray_commands"]
        assert cluster[f"{kind}_start_ray_commands"][:-1] == aws[f"{kind}_start_ray_commands"][:-1]


def test_what_is_yours_to_fill_in_is_on_the_page() -> None:
    yours = [
        (name, line) for name in FILES for line in (FOLDER / f"{name}.yaml").read_text().splitlines() if re.search(r"#.*\byours\b", line)
    ]
    assert len(yours) > 10
    for word in ("--key-name hpo-cluster", "sg-0123456789abcdef0", "/mnt/hpo", "hpo-worker@your-project.iam", "subnets create hpo"):
        assert word in PAGE
    for path in FOLDER.iterdir():
        assert path.name in PAGE or path.name == "README.md"


# ---- AWS, by botocore's description of the call and a simulated EC2 ---------------------------------------------------------------------


def refusals(node: dict[str, Any]) -> str:
    """What botocore has against a node's configuration, as Ray gives it to RunInstances."""
    import botocore.session
    from botocore.validate import ParamValidator

    shape = botocore.session.get_session().get_service_model("ec2").operation_model("RunInstances").input_shape
    call = {key: value for key, value in node.items() if key != "SubnetIds"} | {
        "SubnetId": node["SubnetIds"][0],
        "MinCount": 1,
        "MaxCount": 4,
    }
    return ParamValidator().validate(call, shape).generate_report()


@pytest.mark.parametrize("kind", ["head", "worker"])
def test_ec2_takes_a_node(kind: str) -> None:
    node = config("aws")["available_node_types"][kind]["node_config"]
    assert refusals(node) == ""
    assert "Unknown parameter" in refusals(node | {"SecurityGroup": ["sg-1"]})
    assert "Invalid type" in refusals(node | {"SecurityGroupIds": "sg-1"})


@pytest.fixture
def ec2(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Any, dict[str, Any]]]:
    """A simulated EC2 that has what the page makes, and the file with its names filled in."""
    import boto3
    from moto import mock_aws
    from ray.autoscaler._private.aws import config as bootstrap
    from ray.autoscaler._private.aws import utils

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.setenv(name, "simulated")
    found = config("aws")
    with mock_aws():
        for cache in (utils.resource_cache, utils.client_cache, bootstrap._get_subnets_or_die):
            cache.cache_clear()
        client = boto3.client("ec2", region_name=found["provider"]["region"])
        client.create_key_pair(KeyName="hpo-cluster")
        vpc = client.create_vpc(CidrBlock="10.10.0.0/16")["Vpc"]["VpcId"]
        zone = found["provider"]["availability_zone"]
        subnet = client.create_subnet(VpcId=vpc, CidrBlock="10.10.0.0/24", AvailabilityZone=zone)["Subnet"]["SubnetId"]
        client.modify_subnet_attribute(SubnetId=subnet, MapPublicIpOnLaunch={"Value": True})
        group = client.create_security_group(GroupName="hpo", Description="hpo", VpcId=vpc)["GroupId"]
        image = client.describe_images(Owners=["amazon"])["Images"][0]["ImageId"]
        for kind in found["available_node_types"].values():
            kind["node_config"] |= {"SubnetIds": [subnet], "SecurityGroupIds": [group], "ImageId": image}
        yield client, found


def world_openings(client: Any) -> list[str]:
    """The groups that let the world in."""
    groups = client.describe_security_groups()["SecurityGroups"]
    return [
        group["GroupName"]
        for group in groups
        for rule in group["IpPermissions"]
        if any(source["CidrIp"] == "0.0.0.0/0" for source in rule.get("IpRanges", []))
    ]


def test_ray_makes_nothing_on_aws_but_machines(ec2: tuple[Any, dict[str, Any]]) -> None:
    import boto3
    from ray.autoscaler._private.aws.config import bootstrap_aws

    client, found = ec2
    before = world_openings(client), len(client.describe_security_groups()["SecurityGroups"]), len(client.describe_key_pairs()["KeyPairs"])
    ready = bootstrap_aws(prepared(found))
    assert (
        world_openings(client),
        len(client.describe_security_groups()["SecurityGroups"]),
        len(client.describe_key_pairs()["KeyPairs"]),
    ) == before
    assert boto3.client("iam").list_roles()["Roles"] == []
    assert ready["head_node"] == {}
    for name, kind in ready["available_node_types"].items():
        assert kind["node_config"] == found["available_node_types"][name]["node_config"]


def test_without_a_group_ray_would_let_the_world_in(ec2: tuple[Any, dict[str, Any]]) -> None:
    from ray.autoscaler._private.aws.config import bootstrap_aws

    client, found = ec2
    for kind in found["available_node_types"].values():
        del kind["node_config"]["SecurityGroupIds"]
    bootstrap_aws(prepared(found))
    assert world_openings(client) == ["ray-autoscaler-hpo"]


def test_the_heads_role_suffices_for_what_it_does(ec2: tuple[Any, dict[str, Any]]) -> None:
    import boto3
    from ray.autoscaler._private.aws.node_provider import AWSNodeProvider

    _, found = ec2

    boto3.client("iam").create_instance_profile(InstanceProfileName="hpo-worker")
    calls: set[str] = set()
    provider = AWSNodeProvider(found["provider"], "hpo")
    for resource in (provider.ec2, provider.ec2_fail_fast):
        resource.meta.client.meta.events.register("before-call.ec2.*", lambda model, **_: calls.add(f"ec2:{model.name}"))
    provider.create_node(found["available_node_types"]["worker"]["node_config"], {"ray-node-type": "worker"}, 2)
    nodes = provider.non_terminated_nodes({"ray-node-type": "worker"})
    assert nodes
    provider.set_node_tags(nodes[0], {"ray-node-status": "up-to-date"})
    provider.terminate_nodes(nodes)
    assert provider.non_terminated_nodes({}) == []
    assert {"ec2:RunInstances", "ec2:CreateTags", "ec2:TerminateInstances", "ec2:DescribeInstances"} <= calls
    assert calls <= allowed("head")
    assert not calls & allowed("worker")


def allowed(kind: str) -> set[str]:
    """The actions of a role's policy."""
    policy = json.loads((FOLDER / f"aws-{kind}-policy.json").read_text())
    assert all(statement["Effect"] == "Allow" and "*" not in "".join(statement["Action"]) for statement in policy["Statement"])
    return {action for statement in policy["Statement"] for action in statement["Action"]}


# ---- Google Cloud, by the description of its API ----------------------------------------------------------------------------------------


def unknown(value: Any, shape: dict[str, Any], shapes: dict[str, Any], path: str = "") -> Iterator[str]:
    """What the API's description does not know, or knows as another type."""
    shape = shapes[shape["$ref"]] if "$ref" in shape else shape
    match shape.get("type"), value:
        case "object", dict():
            known = shape.get("properties", {})
            for name, inside in value.items():
                if name in known:
                    yield from unknown(inside, known[name], shapes, f"{path}.{name}")
                elif "additionalProperties" not in shape:
                    yield f"{path}.{name}"
        case "array", list():
            for inside in value:
                yield from unknown(inside, shape["items"], shapes, path)
        case "string", str() if value not in shape.get("enum", [value]):
            yield f"{path}: {value}"
        case ("boolean", bool()) | ("string", str()):
            pass
        case (("integer" | "number" | "string"), int()) if not isinstance(value, bool):
            pass
        case kind, _:
            yield f"{path}: {kind}"


def instance() -> tuple[dict[str, Any], dict[str, Any]]:
    shapes = json.loads(files("googleapiclient").joinpath("discovery_cache/documents/compute.v1.json").read_text())["schemas"]
    return shapes["Instance"], shapes


@pytest.mark.parametrize("kind", ["head", "worker"])
def test_compute_engine_takes_a_node(kind: str) -> None:
    node = config("gcp")["available_node_types"][kind]["node_config"]
    assert list(unknown(node, *instance())) == []


@pytest.mark.parametrize(
    ("path", "value", "found"),
    [
        ("machinetype", "n2-standard-4", ".machinetype"),
        ("disks|0|size", 100, ".disks.size"),
        ("disks|0|type", "PERMANENT", ".disks.type: PERMANENT"),
        ("disks|0|initializeParams|diskSizeGb", [100], ".disks.initializeParams.diskSizeGb: string"),
        ("tags", ["hpo"], ".tags: object"),
        ("networkInterfaces|0|accessConfigs|0|type", "NAT", ".networkInterfaces.accessConfigs.type: NAT"),
        ("scheduling", [{"preemptible": True}], ".scheduling: object"),
    ],
)
def test_compute_engine_refuses_what_it_does_not_know(path: str, value: Any, found: str) -> None:
    node = changed("gcp", f"available_node_types|worker|node_config|{path}", value)["available_node_types"]["worker"]["node_config"]
    assert list(unknown(node, *instance())) == [found]


def test_ray_picks_no_network_on_google_cloud(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    from ray.autoscaler._private.gcp.config import _configure_subnet, get_node_type
    from ray.autoscaler._private.gcp.node import GCPNodeType

    found = prepared(config("gcp"))
    assert _configure_subnet(found, compute=None) == found
    assert {get_node_type(kind["node_config"]) for kind in found["available_node_types"].values()} == {GCPNodeType.COMPUTE}
    del found["available_node_types"]["worker"]["node_config"]["networkInterfaces"]
    with pytest.raises(AttributeError):  # it would ask for the project's networks
        _configure_subnet(found, compute=None)
