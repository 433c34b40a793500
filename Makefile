# Each target sets up what it needs first. `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
SNAKEMAKE = $(BIN)/snakemake --cores $(CORES)
CORES ?= all
QUICK := config/quick.yaml
TEX_PACKAGES := latexmk texlive-latex-recommended texlive-latex-extra texlive-fonts-recommended lmodern \
	cm-super-minimal texlive-plain-generic
# Python with torch takes 5.5 GB on Linux; TeX another 0.7 GB.
PYTHON_MIB := 7000
TEX_MIB := 1500

# A failure inside a recipe is written to logs/failure.txt, and the next target stops with it: as an error of
# make itself it is the last line on the screen.
stop_if_failed = $(if $(shell cat logs/failure.txt 2>/dev/null),$(error $(shell cat logs/failure.txt)))
run = mkdir -p logs && rm -f logs/failure.txt && \
	{ $(1) || [ -s logs/failure.txt ] || echo "the workflow stopped: its message stands above" > logs/failure.txt; }

.PHONY: help setup tex data paper paper-run full full-run figures figures-run test check lint lock

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## /make \1\t/' | column -t -s "$$(printf '\t')"

paper: paper-run ## the quick run, from raw data to paper/paper.pdf, in a few minutes
	@: $(stop_if_failed)
paper-run: setup tex
	@$(call run,$(BIN)/python scripts/make_data.py --configfile config/config.yaml $(QUICK) && \
		$(SNAKEMAKE) --configfile $(QUICK))

full: full-run ## the full reproduction (the same as `snakemake --cores` in the environment)
	@: $(stop_if_failed)
full-run: setup tex
	@$(call run,$(SNAKEMAKE))

figures: figures-run ## the figures of the quick run alone
	@: $(stop_if_failed)
figures-run: setup
	@$(call run,$(SNAKEMAKE) figures --configfile $(QUICK))

data: setup ## fetch all datasets, and record in results/data/available.yaml which can be had
	@$(BIN)/python scripts/make_data.py

test: setup tex ## all tests: they build the quick run to the paper once
	@$(BIN)/python -m pytest

check: setup lint ## the fast tests, at most two minutes
	@$(BIN)/python -m pytest -m "not slow"

lint: setup ## the style of code and rules
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check -q .
	@$(BIN)/snakefmt --check workflow

setup: .venv/installed ## the Python environment .venv, from the lock requirements.txt

.venv/installed: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is older than 3.11: install a newer Python, or name one with make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo "$(PYTHON) cannot make virtual environments: apt-get install python3-venv" >&2; exit 1; }
	@[ -d .venv/lib ] || free=$$(df -Pm . | awk 'NR==2 {print $$4}'); \
		[ -z "$$free" ] || [ "$$free" -ge $(PYTHON_MIB) ] || \
		{ echo "the Python environment needs $(PYTHON_MIB) MiB and this disk has $$free MiB free: make room" >&2; exit 1; }
	@echo "Setting up Python in .venv (a few minutes, about 5.5 GB on Linux)"
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

tex: ## TeX, through the system's package manager when latexmk is missing
	@if ! command -v latexmk >/dev/null; then \
		free=$$(df -Pm /usr | awk 'NR==2 {print $$4}'); \
		if [ "$$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then \
			echo "the paper needs latexmk and TeX: sudo apt-get install --no-install-recommends $(TEX_PACKAGES)" >&2; exit 1; \
		elif [ "$$free" -lt $(TEX_MIB) ]; then \
			echo "TeX needs $(TEX_MIB) MiB and /usr has $$free MiB free: make room" >&2; exit 1; \
		fi; \
		echo "Installing TeX (about two minutes)"; \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(TEX_PACKAGES) >/dev/null; \
	fi

lock: ## write requirements.txt from requirements.in, in a fresh environment
	@rm -rf .venv-lock && $(PYTHON) -m venv .venv-lock
	@.venv-lock/bin/pip install --quiet --disable-pip-version-check -r requirements.in
	@{ echo "# Written by make lock from requirements.in."; .venv-lock/bin/pip freeze | \
		sed -E '/^(nvidia-|cuda-|triton)/ s/$$/ ; sys_platform == "linux" and platform_machine == "x86_64"/'; } > requirements.txt
	@rm -rf .venv-lock
