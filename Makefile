# make launch: from nothing to a registered Fashion-MNIST model.   make test: from nothing to passed tests.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SLOW := $(sort $(wildcard tests/test_*_slow.py) tests/test_ray_engine.py tests/test_test_split.py tests/test_mlflow_pytorch.py tests/test_canaries.py tests/test_chaos.py tests/test_recording.py tests/test_refusals.py tests/test_infra_slurm_runs.py)
BROWSER := tests/browser
CLUSTER := tests/cluster
SERVERS := tests/servers
PLACES := tests/test_infra_slurm_end_to_end.py tests/test_infra_slurm_real.py tests/test_ray_up_hosts.py tests/cluster/test_manifests_run.py

.PHONY: launch test test-slow browser cluster servers places venv data lint types bench bench-quick chaos chaos-full clean

launch: venv data
	$(BIN)/hpo launch search_spaces/fashion.yaml

test: venv lint types
	$(BIN)/python -m pytest $(addprefix --ignore=,$(SLOW) $(BROWSER) $(CLUSTER) $(SERVERS) $(PLACES))

# what the fast suite leaves out: signals, dead workers and hangs on real Ray; the seal, watched in every process; long simulations; imports
test-slow: venv
	$(BIN)/python -m pytest $(SLOW)

# MLflow's pages in a real browser (Debian: apt-get install chromium); screenshots in build/screenshots
browser: venv
	$(BIN)/python -m pytest $(BROWSER)

# several hosts on this machine, in network namespaces: nodes, links that are cut, every port asked by a stranger; needs root
cluster: venv
	$(BIN)/python -m pytest $(CLUSTER) $(addprefix --ignore=,$(PLACES))

# MLflow over a real PostgreSQL, both killed in the middle of studies (Debian: apt-get install postgresql)
servers: venv
	$(BIN)/python -m pytest $(SERVERS)

# infra/ for real, as far as one machine goes: Slurm, ray up over ssh, the manifests' containers (Debian: slurm-wlm openssh-server rsync); root
places: venv
	$(BIN)/python -m pytest $(PLACES)

venv: $(VENV)/.made

# torch first and alone: any other package that asks for torch would otherwise take the newest build there is
$(VENV)/.made: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

data: venv
	$(BIN)/hpo data get fashion-mnist

lint: venv
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: venv
	$(BIN)/mypy

# ours beside the peers, which get environments of their own (build/peers, a few GB, made once); an hour or two on two idle cores
bench: venv data
	$(BIN)/python -m benchmarks.startup
	$(BIN)/python -m benchmarks.engine
	$(BIN)/python -m benchmarks.epoch
	$(BIN)/python -m benchmarks.suggestions
	$(BIN)/python -m benchmarks.driver
	$(BIN)/python -m benchmarks.searches

# does every part of it work? A few minutes, and figures that mean nothing
bench-quick: venv data
	$(BIN)/python -m benchmarks.epoch --quick
	$(BIN)/python -m benchmarks.searches --quick

# every fault of README's table: a seeded sample (at most 15 minutes on two cores), or all of it (hours)
chaos: venv
	$(BIN)/python -m tests.chaos

chaos-full: venv
	$(BIN)/python -m tests.chaos --full

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
