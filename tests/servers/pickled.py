"""Logs a model whose pickle makes a file for whoever loads it, and loads it as our processes would; prints what became of that."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import mlflow

from hpo.tracking import environment, surroundings


class Planted(mlflow.pyfunc.PythonModel):
    """Its pickle is a call."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.file,)

    def predict(self, model_input: list[str]) -> list[str]:
        return model_input


def main(file: Path) -> None:
    """To the server that MLFLOW_TRACKING_URI names."""
    mlflow.set_experiment("pickles")
    with mlflow.start_run():
        logged = mlflow.pyfunc.log_model(name="pickled", python_model=Planted(file), pip_requirements=[])
    with surroundings(environment()):
        try:
            mlflow.pyfunc.load_model(logged.model_uri)
        except mlflow.MlflowException as error:
            print(f"refused: {error}")
            return
    print("loaded")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
