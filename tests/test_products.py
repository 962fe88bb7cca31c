"""Which library multiplies: chosen by speed and accuracy, alike in every process, and without a trace."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from trainers import products
from trainers.products import EXACT, Products, fast_arithmetic, prefer_onednn, probe


@pytest.fixture(autouse=True)
def forgetful(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is remembered from other tests, nor kept for them."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(products, "products", products.products.__wrapped__)
    monkeypatch.setattr(products, "_onednn_is_better", products._onednn_is_better.__wrapped__)


@pytest.mark.parametrize(
    ("default", "onednn", "error", "chosen"),
    [
        (100.0, 220.0, EXACT / 2, True),
        (100.0, 220.0, EXACT * 2, False),  # bfloat16's error: it rounds
        (100.0, 120.0, EXACT / 2, False),  # no more than noise
        (100.0, 0.0, float("inf"), False),  # there is none
    ],
)
def test_the_faster_one_is_chosen_if_it_is_exact(default: float, onednn: float, error: float, chosen: bool) -> None:
    found = Products(default, onednn, EXACT / 3, error)
    assert found.prefers_onednn is chosen
    assert ("by oneDNN" in str(found)) is chosen


def test_what_was_measured_is_what_it_says() -> None:
    before, threads = torch.backends.mkldnn.matmul.fp32_precision, torch.get_num_threads()
    found = probe()
    assert (torch.backends.mkldnn.matmul.fp32_precision, torch.get_num_threads()) == (before, threads)
    assert found.default_gflops > 0
    assert found.default_error < EXACT


def test_the_first_process_measures_for_all(tmp_path: Path) -> None:
    first = products.products()
    (file,) = (tmp_path / "hpo").glob("products-*.json")
    slower = {**json.loads(file.read_text()), "default_gflops": first.default_gflops / 2}
    file.write_text(json.dumps(slower))
    command = [sys.executable, "-c", "from trainers.products import products; print(products().default_gflops)"]
    there = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert float(there) == first.default_gflops / 2


@pytest.mark.parametrize("content", ["", "{", "[]", '{"default_gflops": 1}'])
def test_what_is_not_ours_is_measured_again(content: str, tmp_path: Path) -> None:
    products.products()
    (file,) = (tmp_path / "hpo").glob("products-*.json")
    file.write_text(content)
    measured = products.products()
    assert products.Products(**json.loads(file.read_text())) == measured == products.products()


def test_a_cache_that_cannot_be_written_stops_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert products.products().default_gflops > 0


def test_the_fast_products_are_as_exact_as_float32_and_leave_no_trace() -> None:
    a, b = torch.randn(128, 784), torch.randn(784, 256)
    before = torch.backends.mkldnn.matmul.fp32_precision
    plain = torch.mm(a, b)
    with fast_arithmetic():
        prefer_onednn(128 * 784 * 256)
        fast = torch.mm(a, b)
    assert torch.backends.mkldnn.matmul.fp32_precision == before
    exact = torch.mm(a.double(), b.double())
    assert (fast - exact).abs().max() < 4 * (plain - exact).abs().max()


def test_only_large_products_change_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "_onednn_is_better", lambda: True)
    chosen = []
    with fast_arithmetic():
        for multiply_adds in (products.LARGE - 1, products.LARGE):
            prefer_onednn(multiply_adds)
            chosen.append(torch.backends.mkldnn.matmul.fp32_precision)
    assert chosen == ["ieee", "bf16"]
