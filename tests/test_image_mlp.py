"""The image MLP: its gradient is autograd's, it learns, it goes on from a checkpoint bit for bit, and its data are shared."""

import contextlib
import gzip
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from hpo import checkpoints, data
from hpo.data import DataError
from trainers import datasets, image_mlp, mlp

METRICS = ["train_loss", "train_accuracy", "val_loss", "val_accuracy"]


class Trial:
    """A running trial that keeps what it is offered, through the files that a real one writes."""

    def __init__(self, folder: Path, seed: int = 1, max_epochs: int = 2, device: str = "cpu", restored: bool = False) -> None:
        self.number, self.seed, self.device, self.max_epochs, self.folder = 0, seed, device, max_epochs, folder
        self._restored = restored

    def save(self, **state: Any) -> None:
        self.state = state

    def write(self) -> None:
        checkpoints.save(self.folder, self.state)

    def restored(self) -> dict[str, Any] | None:
        return checkpoints.load(self.folder) if self._restored else None


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """As in a trial's process; small products are slower on many threads than on one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True, scope="module")
def own_machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The datasets of this machine where they are, but a cache of our own: nothing is written to the user's."""
    home = tmp_path_factory.mktemp("machine")
    for name in ("fashion-mnist", "mnist"):
        with contextlib.suppress(DataError):
            (home / name).symlink_to(data.locate(name))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HPO_DATA", str(home))
        patch.setenv("XDG_CACHE_HOME", str(home / "cache"))
        yield


@pytest.fixture(autouse=True)
def fresh_memory() -> Iterator[None]:
    datasets._on_device.cache_clear()
    yield
    datasets._on_device.cache_clear()


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "hpo" / "decoded"


def needs(name: str) -> Path:
    """The folder of a dataset that is not shipped with the tests; skips the test where it is not there."""
    try:
        return data.locate(name)
    except DataError as error:
        pytest.skip(f"not tested on {name}: {error}")


def epochs(trial: Trial, **arguments: Any) -> list[dict[str, float]]:
    chosen = {"learning_rate": 1e-2, "dataset": "digits", "width": 32, "batch_size": 32} | arguments
    return [dict(metrics) for metrics in image_mlp.train(trial, **chosen)]


# ---- the gradient


@pytest.mark.parametrize("depth", [0, 1, 3])
@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_the_gradient_is_autograds(depth: int, dropout: float, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    net = mlp.Mlp(20, 5, width=16, depth=depth, dropout=dropout).double()
    x, labels = torch.rand(7, 20, dtype=torch.float64), torch.randint(0, 5, (7,))
    with torch.no_grad():
        logits = mlp.write_gradient(net, x, F.one_hot(labels, 5).double(), torch.Generator().manual_seed(3))
    written = [p.grad.clone() for p in net.parameters() if p.grad is not None]
    assert len(written) == 2 * (depth + 1)

    again = torch.Generator().manual_seed(3)
    monkeypatch.setattr(F, "dropout", lambda h, p, _: h * mlp._drop(torch.ones_like(h), p, again))
    net.zero_grad()
    expected = net(x)
    F.cross_entropy(expected, labels).backward()
    torch.testing.assert_close(logits, expected.detach())
    torch.testing.assert_close(written, [p.grad for p in net.parameters()])


@pytest.mark.parametrize("probability", [0.0, 0.1, 0.5, 0.99])
def test_dropout_drops_its_share_and_keeps_the_mean(probability: float) -> None:
    kept = mlp._drop(torch.ones(501, 999), probability, torch.Generator().manual_seed(0))
    assert (kept == 0).double().mean().item() == pytest.approx(probability, abs=0.003)
    assert kept.max().item() == pytest.approx(1 / (1 - probability))
    assert abs(torch.corrcoef(torch.stack([kept[:, :-1].flatten(), kept[:, 1:].flatten()]))[0, 1]) < 0.01 or not probability


def test_the_fast_products_are_as_exact_as_float32_and_leave_no_trace() -> None:
    a, b = torch.randn(128, 784), torch.randn(784, 256)
    before = torch.backends.mkldnn.matmul.fp32_precision
    plain = torch.mm(a, b)
    with mlp.fast_arithmetic():
        mlp._prefer_onednn(128 * 784 * 256)
        fast = torch.mm(a, b)
    assert torch.backends.mkldnn.matmul.fp32_precision == before
    exact = torch.mm(a.double(), b.double())
    assert (fast - exact).abs().max() < 4 * (plain - exact).abs().max()


# ---- training


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("decay", ["decoupled", "coupled"])
@pytest.mark.parametrize("depth", [0, 2])
def test_it_learns_the_digits(optimizer: str, decay: str, depth: int, tmp_path: Path) -> None:
    rate = 0.1 if optimizer == "sgd" else 1e-2
    measured = epochs(Trial(tmp_path, max_epochs=15), optimizer=optimizer, decay=decay, depth=depth, learning_rate=rate, weight_decay=1e-4)
    assert [list(metrics) for metrics in measured] == [METRICS] * 15
    assert max(metrics["val_accuracy"] for metrics in measured) > 0.95
    assert measured[-1]["train_loss"] < measured[0]["train_loss"] / 5


def test_it_learns_fashion_mnist(tmp_path: Path) -> None:
    needs("fashion-mnist")
    measured = epochs(
        Trial(tmp_path, max_epochs=3), dataset="fashion-mnist", learning_rate=1e-3, width=128, train_size=10_000, val_size=2_000
    )
    assert measured[-1]["val_accuracy"] > 0.8


@pytest.mark.parametrize(("optimizer", "dropout"), [("adam", 0.3), ("sgd", 0.0)])
def test_a_restored_trial_yields_what_an_uninterrupted_one_does(optimizer: str, dropout: float, tmp_path: Path) -> None:
    whole = Trial(tmp_path, max_epochs=5)
    expected = epochs(whole, optimizer=optimizer, dropout=dropout, weight_decay=0.01)
    cut = Trial(tmp_path, max_epochs=2)
    assert epochs(cut, optimizer=optimizer, dropout=dropout, weight_decay=0.01) == expected[:2]
    cut.write()
    resumed = Trial(tmp_path, max_epochs=5, restored=True)
    torch.manual_seed(99)  # the global generator plays no part
    assert epochs(resumed, optimizer=optimizer, dropout=dropout, weight_decay=0.01) == expected[2:]
    for name, tensor in resumed.state["model"].items():
        assert torch.equal(tensor, whole.state["model"][name])


def test_the_seed_decides_and_nothing_else(tmp_path: Path) -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = epochs(Trial(tmp_path, seed=1), dropout=0.2)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(6)
    assert epochs(Trial(tmp_path, seed=1), dropout=0.2) == first
    assert epochs(Trial(tmp_path, seed=2), dropout=0.2) != first


@pytest.mark.parametrize("decay", ["decoupled", "coupled"])
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_weights_decay_and_biases_do_not(optimizer: str, decay: str) -> None:
    net = image_mlp.build(width=4, dataset="digits")
    before = [p.detach().clone() for p in net.parameters()]
    for p in net.parameters():
        p.grad = torch.zeros_like(p)
    image_mlp._optimizer(net, optimizer, decay, 0.1, 0.5).step()
    for old, new in zip(before, net.parameters(), strict=True):
        if old.ndim == 1:
            assert torch.equal(old, new)
        elif decay == "decoupled" or optimizer == "sgd":
            torch.testing.assert_close(new.detach(), old * (1 - 0.1 * 0.5))
        else:  # Adam normalises the decay away: every weight moves by the learning rate
            torch.testing.assert_close(new.detach(), old - 0.1 * old.sign(), atol=1e-4, rtol=0)


def test_decoupled_sgd_keeps_the_decay_out_of_its_momentum() -> None:
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = image_mlp.DecoupledSGD([weight], 0.1, momentum=0.9, weight_decay=0.5)
    for _ in range(3):
        weight.grad = torch.zeros(1)
        optimizer.step()
    assert weight.item() == pytest.approx(0.95**3)
    assert optimizer.param_groups[0]["weight_decay"] == 0.5


def test_an_optimizer_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="optimizer 'lion' with decay 'coupled': allowed are"):
        image_mlp._optimizer(image_mlp.build(width=4), "lion", "coupled", 0.1, 0.0)


def test_the_model_is_rebuilt_from_its_arguments_and_checkpoint(tmp_path: Path) -> None:
    arguments = {"learning_rate": 1e-2, "width": 8, "depth": 1, "dropout": 0.5, "dataset": "digits", "batch_size": 64}
    trial = Trial(tmp_path, max_epochs=3)
    measured = epochs(trial, **arguments)
    trial.write()
    state = checkpoints.load(tmp_path)
    net = image_mlp.build(**arguments)
    net.load_state_dict(state["model"])
    assert state["example"].shape == (2, 64)
    assert state["example"].dtype == torch.float32
    assert 0 <= state["example"].min() < state["example"].max() <= 1
    split = datasets.load("digits")
    with torch.no_grad():
        right = net.eval()(split.x_val.float() * split.scale).argmax(1) == split.y_val
    assert right.float().mean().item() == pytest.approx(measured[-1]["val_accuracy"], abs=1e-6)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="training on a GPU is not tested: none here")
def test_it_learns_on_a_gpu(tmp_path: Path) -> None:
    measured = epochs(Trial(tmp_path, device="cuda:0", max_epochs=15), dropout=0.1)
    assert max(metrics["val_accuracy"] for metrics in measured) > 0.95


# ---- the data


def test_the_split_is_fixed_and_its_parts_are_disjoint() -> None:
    from sklearn.datasets import load_digits

    split = datasets.load("digits")
    assert (len(split.x), len(split.x_val), split.classes) == (1_197, 300, 10)
    small = datasets.load("digits", train_size=100, val_size=50)
    assert torch.equal(small.x, split.x[:100])
    assert torch.equal(small.y_val, split.y_val[:50])
    assert split.y[:12].tolist() == [2, 8, 2, 6, 6, 7, 1, 9, 8, 5, 2, 8]
    images = {bytes(row): int(label) for row, label in zip(*_digits(load_digits), strict=True)}
    seen = [bytes(row) for row in torch.cat([split.x, split.x_val]).numpy()]
    assert len(set(seen)) == len(seen) == 1_497
    assert [images[row] for row in seen] == torch.cat([split.y, split.y_val]).tolist()


def _digits(load_digits: Any) -> tuple[Any, Any]:
    x, y = load_digits(return_X_y=True)
    return x.astype(np.uint8), y


@pytest.mark.parametrize(
    ("sizes", "said"), [((0, 1), "train_size: 0 .*1..1197"), ((1198, 1), "train_size: 1198"), ((5, 301), "val_size: 301")]
)
def test_sizes_that_the_dataset_does_not_have_are_refused(sizes: tuple[int, int], said: str) -> None:
    with pytest.raises(DataError, match=said):
        datasets.load("digits", *sizes)


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_only_the_training_images_are_decoded_in_a_sealed_process(name: str, own_cache: Path) -> None:
    folder = needs(name)
    program = (
        f"from hpo import data; data.seal(); from trainers import datasets; s = datasets.load({name!r}); print(len(s.x), len(s.x_val))"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["50000", "10000"]
    with gzip.open(folder / "train-labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read(), np.uint8, offset=8)
    stored = np.load(own_cache / f"{name}-v1-labels.npy")
    assert np.array_equal(np.bincount(stored), np.bincount(labels))


def test_the_decoded_data_are_mapped_and_protected(own_cache: Path) -> None:
    first = datasets.load("digits")
    content = (own_cache / "digits-v1-images.npy").read_bytes()
    first.x[0] = 77  # a stray write stays in this process
    assert (own_cache / "digits-v1-images.npy").read_bytes() == content
    assert sorted(file.name for file in own_cache.iterdir() if file.suffix == ".npy") == ["digits-v1-images.npy", "digits-v1-labels.npy"]


@pytest.mark.parametrize("damage", ["cut short", "another shape", "empty"])
def test_a_damaged_decoded_file_is_made_again(damage: str, own_cache: Path) -> None:
    expected = datasets.load("digits").x.clone()
    datasets._on_device.cache_clear()
    file = own_cache / "digits-v1-images.npy"
    content = file.read_bytes()
    if damage == "another shape":
        np.save(file, np.zeros((3, 64), np.uint8))
    else:
        file.write_bytes(content[:-100] if damage == "cut short" else b"")
    assert torch.equal(datasets.load("digits").x, expected)
    assert file.read_bytes() == content


def test_a_damaged_dataset_leaves_no_decoded_file(own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mnist").mkdir()
    for file in data.dataset("mnist").files:
        (tmp_path / "mnist" / f"{file.name}.gz").write_bytes(gzip.compress(b"too short"))
    monkeypatch.setenv("HPO_DATA", str(tmp_path))
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte\.gz: expected 47040016 bytes .*found 9 bytes"):
        datasets.load("mnist")
    assert not list(own_cache.glob("*.npy"))


@pytest.mark.parametrize("fault", ["no folder", "full disk"])
def test_without_a_cache_each_process_keeps_its_own_copy_and_says_so(
    fault: str, own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if fault == "no folder":
        (tmp_path / "cache").write_text("a file where a folder should be")
    else:
        monkeypatch.setattr(datasets.np, "save", _no_space)
    with pytest.warns(RuntimeWarning, match="cannot hold the decoded digits .*a copy of its own in memory; set XDG_CACHE_HOME"):
        split = datasets.load("digits")
    assert len(split.x) == 1_197
    assert not own_cache.exists() or not [file for file in own_cache.iterdir() if file.name != ".digits.lock"]


def _no_space(*_: object, **__: object) -> None:
    raise OSError(28, "No space left on device")


def test_many_at_once_decode_once(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded, decode = [], datasets._decode

    def counted(name: str) -> datasets.Arrays:
        decoded.append(name)
        return decode(name)

    monkeypatch.setattr(datasets, "_decode", counted)
    threads = [threading.Thread(target=datasets._arrays, args=("digits",)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert decoded == ["digits"]
    assert own_cache.is_dir()
