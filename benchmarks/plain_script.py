"""What our launch is measured against: Ray Tune, OptunaSearch, ASHAScheduler and MLflowLoggerCallback, wired as documented.

Written with care, as a competent user would: tensors in memory, no DataLoader, one thread a trial, the data decoded once.
Prints one JSON line.  python -m benchmarks.plain_script --small --trials 20 --seed 0
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import tempfile
import time
from pathlib import Path
from typing import Any

STARTED = time.time()  # before the heavy imports, which every user of such a script pays too

import numpy as np
import ray
from ray import tune
from ray.air.integrations.mlflow import MLflowLoggerCallback
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch

from benchmarks.arithmetic import multiply_adds

SPACE = {
    "learning_rate": tune.loguniform(1e-4, 1e-1),
    "weight_decay": tune.loguniform(1e-6, 1e-1),
    "dropout": tune.uniform(0.0, 0.8),
    "width": tune.lograndint(32, 1025),
}


def decode(cache: Path) -> None:
    """Fashion-MNIST's 60,000 training images as one .npz, by our own split, so that both sides validate on the same ones."""
    from trainers.datasets import load
    from trainers.recipe import Source
    from trainers.splits import DenseRows

    split = load(Source(dataset="fashion-mnist"))
    assert isinstance(split.train.x, DenseRows)
    assert isinstance(split.val.x, DenseRows)
    np.savez(cache, x=split.train.x.values, y=split.train.y, x_val=split.val.x.values, y_val=split.val.y)


def train(config: dict[str, Any], cache: str, n_train: int, n_val: int, batch: int, max_epochs: int, seed: int) -> None:
    """One trial: 784-width-width-10 with dropout, AdamW."""
    import torch
    from torch import nn
    from torch.nn import functional as F

    torch.set_num_threads(1)
    torch.manual_seed(seed)
    stored = np.load(cache)
    x, xv = (torch.from_numpy(stored[name][:size]).float().div_(255) for name, size in (("x", n_train), ("x_val", n_val)))
    y, yv = (torch.from_numpy(stored[name][:size]) for name, size in (("y", n_train), ("y_val", n_val)))
    w, p = config["width"], config["dropout"]
    net = nn.Sequential(nn.Linear(784, w), nn.ReLU(), nn.Dropout(p), nn.Linear(w, w), nn.ReLU(), nn.Dropout(p), nn.Linear(w, 10))
    optimizer = torch.optim.AdamW(net.parameters(), config["learning_rate"], weight_decay=config["weight_decay"])
    for epoch in range(1, max_epochs + 1):
        net.train()
        order = torch.randperm(len(x))
        for i in range(0, len(x), batch):
            j = order[i : i + batch]
            loss = F.cross_entropy(net(x[j]), y[j])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        net.eval()
        with torch.no_grad():
            z = net(xv)
            metrics = {"val_loss": F.cross_entropy(z, yv).item(), "val_accuracy": (z.argmax(1) == yv).float().mean().item()}
        tune.report({**metrics, "epoch": epoch})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--max-epochs", type=int, default=27)
    parser.add_argument("--small", action="store_true", help="1,000 / 500 images, batch 32")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    n_train, n_val, batch = (1000, 500, 32) if options.small else (50_000, 10_000, 128)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        cache = f"{home}/fashion.npz"
        decode(Path(cache))
        cpus = len(os.sched_getaffinity(0))
        ray.init(address="local", num_cpus=cpus, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        trainable = tune.with_parameters(
            train, cache=cache, n_train=n_train, n_val=n_val, batch=batch, max_epochs=options.max_epochs, seed=options.seed
        )
        results = tune.Tuner(
            tune.with_resources(trainable, {"cpu": 1}),
            param_space=SPACE,
            tune_config=tune.TuneConfig(
                metric="val_accuracy",
                mode="max",
                num_samples=options.trials,
                max_concurrent_trials=cpus,
                search_alg=OptunaSearch(seed=options.seed),
                scheduler=ASHAScheduler(time_attr="epoch", max_t=options.max_epochs, grace_period=1, reduction_factor=3),
            ),
            run_config=tune.RunConfig(
                storage_path=home,
                name="plain",
                verbose=0,
                callbacks=[MLflowLoggerCallback(tracking_uri=f"sqlite:///{home}/mlflow.db", experiment_name="plain")],
            ),
        ).fit()
        wall = time.time() - STARTED
        frames = [
            result.metrics_dataframe for result in map(results.__getitem__, range(len(results))) if result.metrics_dataframe is not None
        ]
        best = max(float(frame["val_accuracy"].max()) for frame in frames)
        epochs = sum(len(frame) for frame in frames)
        work = sum(len(frame) * multiply_adds(int(frame["config/width"].iloc[0])) for frame in frames)
        print(json.dumps({"trials": len(results), "wall_s": wall, "epochs": epochs, "best": best, "work": work}), flush=True)
        ray.shutdown()


if __name__ == "__main__":
    main()
