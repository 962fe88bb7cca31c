"""The batch script as Slurm and a shell would read it; that Slurm would refuse a wrong one; what its page says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.slurm_stand_ins.options import NoSuchOption, of_script, submitted

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "infra" / "slurm" / "hpo.sbatch"
PAGE = SCRIPT.with_name("README.md")
SHELLCHECK = Path(sys.executable).with_name("shellcheck")


def checked(text: str, *options: str) -> str:
    """What shellcheck says of a script; empty if nothing."""
    done = subprocess.run([SHELLCHECK, "--severity=style", *options, "-"], input=text, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    return done.stdout


def on_node() -> str:
    """The part of the script that each node's own shell runs."""
    found = re.search(r"^on_node='\n(.*?)^'$", SCRIPT.read_text(), re.MULTILINE | re.DOTALL)
    assert found
    return found[1]


def test_slurm_knows_every_option_in_the_script() -> None:
    assert of_script(SCRIPT.read_text()) == {
        "job-name": "hpo",
        "nodes": "2",
        "ntasks-per-node": "1",
        "cpus-per-task": "8",
        "time": "04:00:00",
        "output": "hpo-%j.log",
        "open-mode": "append",
        "signal": "B:TERM@120",
        "requeue": "",
        "no-kill": "",
    }


@pytest.mark.parametrize(
    ("line", "becomes", "why"),
    [
        ("#SBATCH --requeue", "#SBATCH --re-queue", "unrecognized option '--re-queue'"),
        ("#SBATCH --nodes=2", "#SBATCH --node=2", "unrecognized option"),
        ("#SBATCH --nodes=2", "#SBATCH --nodes=two", "invalid value"),
        ("#SBATCH --nodes=2", "#SBATCH --nodes", "requires an argument"),
        ("#SBATCH --nodes=2", "#SBATCH -nodes=2", "unrecognized option"),
        ("#SBATCH --nodes=2", "#SBATCH nodes=2", "what is nodes=2"),
        ("#SBATCH --nodes=2", "# SBATCH --nodes=2", "a comment"),
        ("#SBATCH --nodes=2", "#SBATCH--nodes=2", "a comment"),
        ("#SBATCH --signal=B:TERM@120", "#SBATCH --signal=B:TERM@2m", "invalid value"),
        ("#SBATCH --signal=B:TERM@120", "#SBATCH --signal=X:TERM@120", "invalid value"),
        ("#SBATCH --time=04:00:00", "#SBATCH --time=4h", "invalid value"),
        ("#SBATCH --open-mode=append", "#SBATCH --open-mode=a", "invalid value"),
        ("#SBATCH --open-mode=append", "#SBATCH --kill-on-bad-exit=0", "unrecognized option"),  # srun's
        ("umask 077", "#SBATCH --mem=0\numask 077", "behind the first command"),
        ("#!/bin/bash", "# a script", "batch script"),
    ],
)
def test_slurm_refuses_what_it_does_not_know(line: str, becomes: str, why: str) -> None:
    text = SCRIPT.read_text()
    assert text.count(line) >= 1
    with pytest.raises(NoSuchOption, match=why):
        of_script(text.replace(line, becomes, 1))


def test_the_shell_script_is_sound() -> None:
    assert checked(SCRIPT.read_text()) == ""
    assert checked("#!/bin/bash\n" + on_node()) == ""


def test_shellcheck_would_say_so_if_it_were_not() -> None:
    assert "SC2086" in checked(SCRIPT.read_text().replace('mkdir -p "$shared"', "mkdir -p $shared", 1))
    assert "SC2086" in checked("#!/bin/bash\n" + on_node().replace('mkdir -p "$dir"', "mkdir -p $dir", 1))


def test_it_stops_at_the_first_error_and_keeps_its_files_to_its_user() -> None:
    lines = [line for line in SCRIPT.read_text().splitlines() if line and not line.startswith("#")]
    assert lines[:2] == ["set -euo pipefail", "umask 077   # the token, the journal, the checkpoints: nobody else's"]
    assert "set -eu\numask 077" in on_node()


def test_every_command_of_the_page_is_one_that_slurm_takes() -> None:
    commands = re.findall(r"^sbatch (.*?)(?:\s+#.*)?$", PAGE.read_text(), re.MULTILINE)
    assert len(commands) >= 4
    for command in commands:
        _options, (script, *arguments) = submitted(command.split())
        assert (ROOT / script) == SCRIPT
        assert arguments


def test_the_page_and_the_script_name_the_same_variables() -> None:
    head = SCRIPT.read_text().partition("#SBATCH")[0]
    said = set(re.findall(r"^#   (HPO_\w+)", head, re.MULTILINE))
    read = set(re.findall(r"\$\{(HPO_\w+):-", SCRIPT.read_text()))
    assert said == read
    assert said <= set(re.findall(r"`(HPO_\w+)", PAGE.read_text()))
