"""A real study with a trial of every end, MLflow's server over its record, and a browser on it; once a module."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hpo.results import StoredStudy
from hpo.tracking import ui_command
from tests.browser.too_wide import WIDEST
from tests.conftest import ROOT, run_hpo

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

    from tests.browser.pages import Mlflow

SCREENSHOTS = ROOT / "build" / "screenshots"
CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
FLAGS = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync"
SERVER_LIMIT_S = 60
PAGE_LIMIT_MS = 20_000
STUDY = "first-search"
START = f"[{{learning_rate: 3e-3, weight_decay: 1e-3, dropout: 0.2, width: {WIDEST + 1}}}]"  # so that at least one trial fails


@pytest.fixture(scope="module")
def study(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> StoredStudy:
    """A search on the handwritten digits whose trials completed, were pruned and failed, with finals; none is made without a browser."""
    home = tmp_path_factory.mktemp("home")
    spec = str(ROOT / "search_spaces" / "digits.yaml")
    # no rung before the second epoch, in which the nets that are too wide fail: so they fail, and have a value
    # and so short that 30 % of all epochs are enough for two runs of the finals
    settings = ("pruner.grace_epochs=2", "trainer.settings.max_epochs=6", f"start={START}")
    changes = ("--name", STUDY, "--trials", "15", *(word for setting in settings for word in ("--set", setting)))
    done = run_hpo(home, "launch", spec, "--trainer", "tests.browser.too_wide:train", *changes)
    assert done.code == 0, done.err
    return StoredStudy.open(home / STUDY)


@pytest.fixture(scope="module")
def server(study: StoredStudy) -> Iterator[str]:
    """The address of an MLflow server over the study's home, started as `hpo ui` starts it."""
    home = study.folder.parent
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with (home / "server.log").open("wb") as log:
        process = subprocess.Popen(ui_command(home, port=port), stdout=log, stderr=log, start_new_session=True)
    try:
        _until_it_answers(f"http://127.0.0.1:{port}/health", process, home / "server.log")
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # it has nothing to lose: the database is SQLite's
        process.wait()


def _until_it_answers(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + SERVER_LIMIT_S
    while True:
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except OSError:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.1)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium without a window, with an empty profile."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs Playwright: pip install '.[dev]'")
    if not Path(CHROMIUM).is_file():
        pytest.skip("needs a browser: apt install chromium")
    playwright.expect.set_options(timeout=PAGE_LIMIT_MS)
    with playwright.sync_playwright() as driver:
        launched = driver.chromium.launch(executable_path=CHROMIUM, headless=True, args=FLAGS.split())
        yield launched
        launched.close()


@pytest.fixture
def newcomer(browser: Browser) -> Iterator[Page]:
    """An empty page of somebody who has never been anywhere."""
    context = browser.new_context(viewport={"width": 1400, "height": 900})
    page = context.new_page()
    page.set_default_timeout(PAGE_LIMIT_MS)
    yield page
    context.close()


@pytest.fixture
def mlflow(newcomer: Page, server: str) -> Mlflow:
    """MLflow's start page, in its part for training models."""
    from tests.browser.pages import Mlflow

    return Mlflow.start(newcomer, server, SCREENSHOTS)
