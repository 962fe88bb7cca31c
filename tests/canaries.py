"""Files that tell on whoever runs them: planted in a stranger's folders, each appends its name to one file when it is run.

Nothing here is run by the tests; `CONTROLS` are the careless ways that run it, so that it is known to work.
"""

from __future__ import annotations

import importlib.metadata
import io
import json
import os
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from hpo.events import Created
from hpo.journal import FILE_NAME
from hpo.journal_format import decode, encode

# modules that libraries look for and do without, where these are not installed: nobody else's hides them
OPTIONAL = (
    "IPython", "tensorflow", "cupy", "jax", "numba", "bottleneck", "numexpr", "tblib", "pyspark", "boto3", "google", "azure", "ipywidgets",
    "plotly", "botorch", "xgboost", "lightgbm", "keras", "flax", "dask", "polars", "cudf", "simplejson", "ujson", "orjson", "uvloop",
    "colorama", "dotenv", "usercustomize", "sitecustomize", "conftest", "evil", "mlflow_plugin", "databricks", "pynvml", "gputil", "apex",
    "torchvision", "torchao", "triton", "onnx", "brotli", "zstandard", "chardet", "cchardet", "h2", "socks", "OpenSSL",
)  # fmt: skip
OURS = ("hpo", "trainers", "tests", "benchmarks")
GROUPS = (
    "hpo.trainers", "mlflow.tracking_store", "mlflow.model_registry_store", "mlflow.artifact_repository", "mlflow.run_context_provider",
    "mlflow.default_experiment_provider", "mlflow.request_header_provider", "mlflow.project_backend", "mlflow.app", "pydantic", "optuna",
    "sqlalchemy.dialects", "pytest11", "console_scripts", "matplotlib.backend", "fsspec.specs", "opentelemetry_context",
)  # fmt: skip


class Canaries:
    """What was run is named in the file `song`, each by its `what`."""

    def __init__(self, song: Path) -> None:
        self.song = song

    @property
    def sung(self) -> list[str]:
        """Who was run since the last call."""
        found = self.song.read_text().splitlines() if self.song.exists() else []
        self.song.unlink(missing_ok=True)
        return found

    def code(self, what: str) -> str:
        """An expression of Python."""
        return f"__import__('os').system('echo {what} >> {self.song}')"

    def pickle(self, what: str) -> bytes:
        """What runs when it is unpickled, by protocol 0, which every version reads."""
        return f"cposix\nsystem\n(S'echo {what} >> {self.song}'\ntR.".encode()

    def torch(self, what: str) -> bytes:
        """A file as `torch.save` writes it."""
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w") as archive:
            archive.writestr("archive/data.pkl", self.pickle(what))
            archive.writestr("archive/version", "3\n")
            archive.writestr("archive/byteorder", "little")
        return content.getvalue()

    def array(self, what: str) -> bytes:
        """A .npy file of an array of objects."""
        header = b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }"
        header += b" " * (-(len(header) + 11) % 64) + b"\n"
        return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + self.pickle(what)

    def yaml(self, what: str) -> str:
        """A value that a careless loader of YAML runs."""
        return f'!!python/object/apply:os.system ["echo {what} >> {self.song}"]'

    def plant_modules(self, folder: Path) -> int:
        """Beside each other: modules called as anything that may be imported, plug-ins, settings that name code; how many modules."""
        installed = importlib.metadata.packages_distributions().keys()
        names = {name for name in {*sys.stdlib_module_names, *installed, *OPTIONAL, *OURS} if name.isidentifier()}
        for name in sorted(names - {"__main__"}):
            (folder / f"{name}.py").write_text(self.code(f"module-{name}-in-{folder.name}") + "\n")
        (folder / "__init__.py").write_text(self.code(f"package-in-{folder.name}") + "\n")
        (folder / "evil_package").mkdir(exist_ok=True)
        for name in ("__init__", "sub"):
            (folder / "evil_package" / f"{name}.py").write_text(self.code(f"evil_package-in-{folder.name}") + f"\n{TRAINER}")
        (folder / "evil_module.py").write_text(self.code(f"evil_module-in-{folder.name}") + f"\n{TRAINER}")
        (folder / "trainers").mkdir(exist_ok=True)
        (folder / "trainers" / "__init__.py").write_text(self.code(f"trainers-in-{folder.name}") + "\n")
        (folder / "trainers" / "hpo_trainers.yaml").write_text("mlp: {entry: 'evil_module:train', check: 'evil_module:check'}\n")
        (folder / "evil.pth").write_text(f"import os; {self.code(f'pth-in-{folder.name}')}\n")
        info = folder / "evil-1.0.dist-info"
        info.mkdir(exist_ok=True)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: evil\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text("".join(f"[{group}]\nevil = evil_module:train\n" for group in GROUPS))
        (folder / "matplotlibrc").write_text(
            "backend: module://evil_module\ntext.usetex: True\n"
            f'axes.prop_cycle: cycler("color", [__import__("os").system("echo matplotlibrc >> {self.song}")])\n'
        )
        (folder / ".env").write_text("PYTHONSTARTUP=evil_module.py\nMLFLOW_ALLOW_PICKLE_DESERIALIZATION=true\n")
        (folder / "pyproject.toml").write_text("[tool.hpo]\ntrainer = 'evil_module:train'\n")
        return len(names)

    def plant_git(self, folder: Path) -> None:
        """A checkout whose own settings name programs."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        for words in (["init", "-q"], ["add", "evil.pth"], [*identity, "commit", "-qm", "x"]):
            subprocess.run(["git", *words], cwd=folder, check=True, env=environment)
        sing = f"echo git >> {self.song}"
        hook = folder / ".git" / "hooks" / "post-index-change"
        for name in ("post-index-change", "reference-transaction", "post-checkout"):
            hook = folder / ".git" / "hooks" / name
            hook.write_text(f"#!/bin/sh\n{sing}\n")
            hook.chmod(0o755)
        with (folder / ".git" / "config").open("a") as config:
            config.write(f'[core]\n\tfsmonitor = "{sing}; false"\n\tpager = "{sing}"\n\tsshCommand = "{sing}"\n')
            config.write(f'[filter "evil"]\n\tclean = "{sing}; cat"\n\tsmudge = "{sing}; cat"\n[alias]\n\trev-parse = "!{sing}"\n')
        (folder / ".gitattributes").write_text("* filter=evil\n")
        os.utime(folder / "evil.pth", (0, 0))

    def plant_data(self, folder: Path) -> None:
        """Beside what is there: files that careless loaders run."""
        for name in ("state.pkl", "optimizer.pkl", "study.pickle", "model.joblib", "searcher-state.pkl", "tuner.pkl", "error.pkl"):
            (folder / name).write_bytes(self.pickle(f"{name}-in-{folder.name}"))
        for name in ("model.pt", "model.pth", "checkpoint.ckpt", "data.pkl", "model.pt2"):
            (folder / name).write_bytes(self.torch(f"{name}-in-{folder.name}"))
        (folder / "x.npy").write_bytes(self.array(f"x.npy-in-{folder.name}"))
        (folder / "spec.yaml").write_text(f"name: {self.yaml('spec.yaml')}\n")
        (folder / "pickle_module_info.txt").write_text("evil_module")

    def plant_model(self, folder: Path) -> None:
        """An MLflow model in the place of another: its files say that code of its own loads it."""
        (folder / "code").mkdir(parents=True, exist_ok=True)
        (folder / "data").mkdir(exist_ok=True)
        (folder / "code" / "evil_loader.py").write_text(self.code("loader") + "\ndef _load_pyfunc(path): return None\n")
        (folder / "data" / "model.pth").write_bytes(self.torch("model.pth"))
        (folder / "data" / "model.pt2").write_bytes(self.torch("model.pt2"))
        (folder / "data" / "pickle_module_info.txt").write_text("evil_loader")
        (folder / "python_model.pkl").write_bytes(self.pickle("python_model"))
        flavors = {"python_function": {"loader_module": "evil_loader", "code": "code", "data": "data", "python_version": "3.11"}}
        (folder / "MLmodel").write_text(json.dumps({"artifact_path": "model", "flavors": flavors, "model_uuid": "0" * 32}))


TRAINER = """
def train(trial, *, learning_rate: float):
    for _ in range(2):
        yield {"val_accuracy": learning_rate}
def check(*_):
    return ()
def build(**_):
    return None
"""
# how each kind of plant is run by those who are careless: a command of Python in the folder, its name as an argument
CONTROLS = {
    "pickle": ("study.pickle", "import pickle, sys; pickle.load(open(sys.argv[1], 'rb'))"),
    "torch": ("model.pt", "import torch, sys; torch.load(sys.argv[1], weights_only=False)"),
    "numpy": ("x.npy", "import numpy, sys; numpy.load(sys.argv[1], allow_pickle=True)"),
    "yaml": ("spec.yaml", "import yaml, sys; yaml.unsafe_load(open(sys.argv[1]))"),
    "site": (".", "import site, sys; site.addsitedir(sys.argv[1])"),
    "module": (".", "import sys; sys.path.insert(0, sys.argv[1]); import IPython"),
    "plug-in": (
        ".",
        "import sys, importlib.metadata as m; sys.path.append(sys.argv[1]); "
        "[point.load() for point in m.entry_points(group='hpo.trainers', name='evil')]",
    ),
    "git": (".", "import subprocess, sys; subprocess.run(['git', 'status'], cwd=sys.argv[1], stdout=-3)"),
}


def forge(study: Path, target: Path, spec: dict[str, Any], *, lines: int | None = None) -> None:
    """The journal of `study`, every checksum right, in the folder `target`, as if it had been launched from `spec` changed so."""
    written = (study / FILE_NAME).read_bytes().splitlines()[:lines]
    target.mkdir(parents=True, exist_ok=True)
    first, more = decode(written[0])
    assert isinstance(first.event, Created)
    created = replace(first.event, study=target.name, spec=_merged(dict(first.event.spec), spec))
    forged = encode(first._replace(event=created), more)
    (target / FILE_NAME).write_bytes(forged + b"".join(line + b"\n" for line in written[1:]))


def _merged(plain: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(plain.get(key), dict) and key != "settings"
        plain[key] = _merged(dict(plain[key]), value) if both else value
    return plain
