# Every target does its own set-up: a virtual environment in .venv, pinned by constraints.txt.
# The first of these that runs.
PYTHONS := python3.11 python3.12 python3.13 python3
PYTHON ?= $(shell for python in $(PYTHONS); do $$python --version >/dev/null 2>&1 && echo $$python && break; done)
VENV := .venv
BIN := $(VENV)/bin
# Two threads that wait without spinning: on a few shared cores spinning costs more than it saves.
export OMP_WAIT_POLICY ?= passive

# A file of tests to a process, and a thread to a test.
SPREAD := --numprocesses logical --maxprocesses 4 --dist loadfile

.PHONY: install demo ablation test test-all test-faults test-floor test-gpu docs lint bench bench-api bench-cache bench-catalog bench-cli bench-stage bench-encoders bench-metrics bench-train bench-traffic bench-gpu clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

# Without a GPU by two processes of one thread, which wait for each other once a step; threads wait in every operation.
RANKS ?= $(shell nvidia-smi --list-gpus >/dev/null 2>&1 && echo 1 || echo 2)

demo: install
	OMP_NUM_THREADS=1 $(BIN)/torchrun --nproc-per-node $(RANKS) --no-python -- $(BIN)/lcm run --preset shapes

# Hours on two cores: `make ablation ONLY=original,default SEEDS=1` is the short form.
ablation: install
	$(BIN)/lcm ablate --preset shapes --run runs/ablation $(if $(ONLY),--only $(ONLY)) $(if $(SEEDS),--seeds $(SEEDS))

test: install
	$(BIN)/pytest $(SPREAD)

test-all: install
	$(BIN)/pytest -m '' $(SPREAD)

# The reliability table of docs/reliability.md; `make test` makes a few trials of each row. One process more than cores, as
# commands wait for disks, stores and owners.
test-faults: install
	$(BIN)/pytest --numprocesses $$(($$(nproc) + 1)) --maxprocesses 8 --dist load --maxschedchunk 1 --all-trials tests/faults

test-floor: .venv-floor/.installed
	.venv-floor/bin/pytest $(SPREAD)

# The lowest releases that pyproject.toml allows.
.venv-floor/.installed: pyproject.toml constraints-floor.txt
	$(PYTHON) -m venv .venv-floor
	.venv-floor/bin/pip install --quiet --disable-pip-version-check --constraint constraints-floor.txt --editable '.[dev]'
	touch $@

# Minutes on a GPU; without one each test says so and is skipped.
test-gpu: install
	$(BIN)/pytest -m gpu tests/gpu

# The site, in site/. Once its extra is installed no network is needed.
docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo 'site/index.html opens from disk; its search needs a server: python -m http.server --directory site'

$(VENV)/.docs: $(VENV)/.installed
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[docs]'
	touch $@

lint: install
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright
	$(BIN)/lint-imports

bench: install
	$(BIN)/python benchmarks/network_and_cache.py

bench-api: install
	$(BIN)/python benchmarks/api.py

bench-catalog: install
	$(BIN)/python benchmarks/catalog.py

bench-cli: install
	$(BIN)/python benchmarks/cli.py $(if $(RUN),--run $(RUN))

bench-stage: install
	$(BIN)/python benchmarks/stage.py

bench-encoders: install
	$(BIN)/python benchmarks/encoders.py

bench-train: install
	$(BIN)/python benchmarks/train.py

# No GPU is needed: bytes are counted.
bench-traffic: install
	$(BIN)/python benchmarks/traffic.py

bench-gpu: install
	$(BIN)/python benchmarks/gpu.py

bench-cache: .venv-bench/.installed
	PYTHONPATH=src .venv-bench/bin/python benchmarks/cache.py

bench-metrics: .venv-bench-metrics/.installed
	PYTHONPATH=src:. .venv-bench-metrics/bin/python benchmarks/metrics.py

# Peers pin old releases of what we use, hence an environment of their own.
.venv-bench/.installed: benchmarks/peers.txt
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/pip install --quiet --disable-pip-version-check --requirement benchmarks/peers.txt
	touch $@

.venv-bench-metrics/.installed: benchmarks/metrics_peers.txt
	$(PYTHON) -m venv .venv-bench-metrics
	.venv-bench-metrics/bin/pip install --quiet --disable-pip-version-check --requirement benchmarks/metrics_peers.txt
	touch $@

clean:
	rm -rf $(VENV) .venv-floor .venv-bench .venv-bench-metrics runs build dist site .pytest_cache .ruff_cache
