# `make help` lists what can be done. Needs make and Python 3.11 or newer with its venv module.
.PHONY: help figures test soak lab lint lock clean
.NOTPARALLEL:
.DEFAULT_GOAL := help

RUN := .venv/bin/python -m
ARGS ?=
# One worker a core, at most 8: each of them imports torch.
WORKERS ?= auto --maxprocesses=8
# The share of the package's branches that the tests must take; COVERAGE= is a quarter faster.
COVERAGE ?= --cov --cov-report=term --cov-fail-under=95
# What `make soak` repeats, and the master seeds it does it with.
SOAKED ?= 04_three_counts 05_exact_dimension 06_the_law 07_phase_transition 08_block_designs \
  09_real_architectures
SEEDS ?= 1 2 3

# Settings of the user's own Jupyter, IPython, matplotlib and Python could change a result or share
# a file with another clone: every run that checks something keeps its own, inside .venv.
unexport JUPYTER_PATH JUPYTER_PREFER_ENV_PATH JUPYTER_RUNTIME_DIR MPLBACKEND PYTHONPATH PYTHONHOME
figures test soak: export JUPYTER_CONFIG_DIR := $(CURDIR)/.venv/var/jupyter/config
figures test soak: export JUPYTER_DATA_DIR := $(CURDIR)/.venv/var/jupyter/data
figures test soak: export IPYTHONDIR := $(CURDIR)/.venv/var/ipython
figures test soak: export MPLCONFIGDIR := $(CURDIR)/.venv/var/matplotlib

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' Makefile

figures: .venv/ready ## run every notebook and regenerate every figure (ARGS="--only ID" for some)
	$(RUN) krratio reproduce $(ARGS)

test: .venv/ready ## run pytest, then nbval on the committed notebooks
	$(RUN) pytest -n $(WORKERS) --dist worksteal $(if $(ARGS),$(ARGS),$(COVERAGE))
	@if ls notebooks/*.ipynb >/dev/null 2>&1; then set -x; \
	  $(RUN) pytest --nbval --nbval-current-env --nbval-cell-timeout=280 \
	    -n $(WORKERS) --dist loadfile notebooks; fi

soak: .venv/ready ## chapters of measured claims with other master seeds, then every fault (an hour)
	@mkdir -p runs/soak
	@for seed in $(SEEDS); do for chapter in $(SOAKED); do \
	  KRRATIO_FIGURES=runs/soak .venv/bin/papermill -k python3 --no-progress-bar -p seed $$seed \
	    notebooks/$$chapter.ipynb runs/soak/$$chapter-$$seed.ipynb >runs/soak/$$chapter-$$seed.log 2>&1 \
	  && echo "$$chapter holds with seed $$seed" \
	  || { echo "$$chapter fails with seed $$seed: runs/soak/$$chapter-$$seed.log"; exit 1; }; \
	done; done
	.venv/bin/python scripts/inject_faults.py --thorough

lab: .venv/ready ## open JupyterLab on the notebooks
	$(RUN) jupyterlab notebooks

lint: .venv/ready ## ruff (lint and format) and mypy
	$(RUN) ruff check
	$(RUN) ruff format --check
	$(RUN) mypy

lock: .venv/ready ## regenerate requirements.lock from environment.yml (ARGS=--upgrade moves all)
	.venv/bin/python scripts/lock_environment.py $(ARGS)

clean: ## remove .venv and caches, but no data and no results
	if [ -f .venv/made-by-make ]; then rm -rf .venv.old && mv .venv .venv.old; fi
	rm -rf .venv.old .venv.new .venv.setup .venv.log build dist src/*.egg-info
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -path ./.venv -prune -o -name __pycache__ -prune -exec rm -rf {} +

# Always asked; scripts/setup.sh compares contents and returns at once when nothing changed.
.PHONY: .venv/ready
.venv/ready:
	@sh scripts/setup.sh
