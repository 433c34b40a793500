# Each target sets up what it needs first. `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
CORES ?= all
WITH_SCRIPTS = PYTHONPATH=scripts$${PYTHONPATH:+:$$PYTHONPATH}
GOLDILOCKS = $(WITH_SCRIPTS) $(BIN)/python -m goldilocks_zone
# The logger, a plugin that Snakemake finds in scripts/, reports progress.
SNAKEMAKE = $(WITH_SCRIPTS) $(BIN)/snakemake --cores $(CORES) --logger goldilocks
QUICK := config/quick.yaml
CONFIG ?= $(QUICK)
PROFILE ?= workflow/profiles/slurm
TEX_PACKAGES := latexmk texlive-latex-recommended texlive-latex-extra texlive-fonts-recommended lmodern \
	cm-super-minimal texlive-plain-generic
# Python with torch takes 6 GB on Linux, and pip needs space to unpack; TeX takes another 0.7 GB.
PYTHON_MIB := 9500
TEX_MIB := 1500

# Runs do not depend on the home folder (user packages, Snakemake profiles) or on a notebook's settings.
export PYTHONNOUSERSITE := 1
export MPLBACKEND := Agg
unexport SNAKEMAKE_PROFILE
# Caches lie in the checkout if the home folder cannot be written.
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)
ifeq ($(shell mkdir -p "$(CACHE)" 2>/dev/null && [ -w "$(CACHE)" ] && echo yes),)
export XDG_CACHE_HOME := $(CURDIR)/.snakemake/cache
endif

# The last line on the screen is the message of a failure. Because make prints a line of its own after a failing recipe,
# the recipe of a command `x` stands under `x-run`, which writes its message to a file and succeeds; then `x` stops with
# this message as make's error. The file lies outside the checkout, whose disk may be full or read-only.
COMMANDS := $(shell sed -n 's/^\([a-z-]*\)-run:.*/\1/p' Makefile)
export GOLDILOCKS_FAILURE := $(or $(GOLDILOCKS_FAILURE),$(shell mktemp -u -t goldilocks-failure.XXXXXX))
failed = $(shell cat "$(GOLDILOCKS_FAILURE)" 2>/dev/null)
stop_if_failed = $(if $(failed),$(error $(failed)$(shell rm -f "$(GOLDILOCKS_FAILURE)")))
run = trap 'rm -f "$(GOLDILOCKS_FAILURE)"; echo "interrupted: run the same command again and it continues" >&2; \
		exit 130' INT; \
	if ( $(1) ); then rm -f "$(GOLDILOCKS_FAILURE)"; \
	else grep -q "[^[:space:]]" "$(GOLDILOCKS_FAILURE)" 2>/dev/null || \
		echo "$(@:-run=) stopped: its message stands above" > "$(GOLDILOCKS_FAILURE)" || exit 1; fi
SET_UP := $(MAKE) --silent --no-print-directory
fail = { echo "$(1)" | tee "$(GOLDILOCKS_FAILURE)" >&2; exit 1; }
# The same characters as in goldilocks_zone.jobs.lifecycle, because a shell starts the jobs.
refuse_path = case "$$PWD" in *[[:space:]\'\"\&\$$\(\)\;\{\}\\\*\`\<\>\|\?\[\]:]*) \
	$(call fail,$$PWD has a character in its path that shells or Python read in their own way: move it to a path \
without spaces and quotes and signs such as & and run again);; esac
# Some tests make jobs fail. Without bytecode, every worker would compile all tests, and their jobs the package.
PYTEST := env -u GOLDILOCKS_FAILURE -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m pytest
# Tests that measure time, disturb a starting job or need every core run alone, the others in parallel.
ALONE := tests/workflow/test_quick.py tests/workflow/test_faults.py
# One worker more than cores, because tests of the workflow often wait.
WORKERS := $(shell echo $$(( $$(nproc 2>/dev/null || echo 2) + 1 )))
PYTEST_SIDE_BY_SIDE := OMP_NUM_THREADS=1 $(PYTEST) -n $(WORKERS) --dist loadfile --no-loadscope-reorder

# Parallel goals would be parallel runs.
.NOTPARALLEL:
.PHONY: help setup tex pins lint programs lock $(COMMANDS) $(COMMANDS:=-run)

help: ## this list
	@awk -F '(-run)?:.*## ' '/^[a-z-]+:.*## / {printf "make %-11s %s\n", $$1, $$2}' Makefile

$(COMMANDS): %: %-run
	@: $(stop_if_failed)

paper-run: ## the quick run, from raw data to paper/paper.pdf, in a few minutes
	@$(call run,$(SET_UP) setup tex && $(GOLDILOCKS) data $(QUICK) && $(SNAKEMAKE) --configfile $(QUICK))

full-run: ## the full reproduction (the same as .venv/bin/snakemake --cores all)
	@$(call run,$(SET_UP) setup tex && $(SNAKEMAKE))

figures-run: ## the figures of the quick run alone
	@$(call run,$(SET_UP) setup && $(SNAKEMAKE) figures --configfile $(QUICK))

figure-run: ## one figure, drawn anew: make figure NAME=loss [CONFIG=config/mine.yaml]
	@$(call run,$(SET_UP) setup && figure=$$($(GOLDILOCKS) figure "$(NAME)" "$(CONFIG)") && \
		$(SNAKEMAKE) --force $$figure --configfile $(CONFIG))

data-run: ## fetch all datasets, and record in results/data/available.yaml which are available
	@$(call run,$(SET_UP) setup && $(GOLDILOCKS) data)

slurm-run: ## a run on a cluster with SLURM: make slurm CONFIG=config/paper_scale.yaml [PROFILE=my/profile]
	@$(call run,$(SET_UP) setup .venv-slurm/installed && \
		PYTHONPATH=scripts:.venv-slurm $(BIN)/snakemake --workflow-profile $(PROFILE) --logger goldilocks --configfile $(CONFIG))

plan-run: ## what a run would do, why, and for how long: make plan [CONFIG=config/config.yaml] [CORES=2]
	@$(call run,$(SET_UP) setup && $(GOLDILOCKS) plan $(CONFIG) --cores $(CORES))

status-run: ## how far each study of a run is: make status [CONFIG=config/config.yaml]
	@$(call run,$(SET_UP) setup && $(GOLDILOCKS) status $(CONFIG))

draws-run: ## draws that the claims require of each study, from a finished run: make draws [CONFIG=config/config.yaml]
	@$(call run,$(SET_UP) setup && $(GOLDILOCKS) draws $(CONFIG))

report-run: ## figures, claims and settings to look at in a browser: make report [CONFIG=config/config.yaml]
	@$(call run,$(SET_UP) setup tex && $(SNAKEMAKE) --configfile $(CONFIG) && \
		$(BIN)/snakemake --cores 1 --report report.zip --configfile $(CONFIG) && echo "report.zip: unpack it and open report.html")

archive-run: ## a run's results in one file for others: make archive [CONFIG=config/config.yaml]
	@$(call run,$(SET_UP) setup tex && $(SNAKEMAKE) --configfile $(CONFIG) && $(GOLDILOCKS) archive $(CONFIG))

review-run: ## figures and paper from an archive, without torch: make review ARCHIVE=results/quick/quick.tar.gz [CONFIG=config/config.yaml]
	@$(call run,[ -f "$(ARCHIVE)" ] || $(call fail,there is no archive $(ARCHIVE): name one with make review ARCHIVE=...); \
		$(SET_UP) .venv-review/installed tex && .venv-review/bin/snakemake --cores $(CORES) --configfile $(CONFIG) \
		--config results_from="$(ARCHIVE)")

.venv-review/installed: envs/review.txt
	@$(refuse_path)
	@echo "Setting up Python without torch in .venv-review"
	@$(PYTHON) -m venv .venv-review && .venv-review/bin/pip install --quiet --disable-pip-version-check -r $< || \
		$(call fail,pip could not set up .venv-review: its message stands above)
	@touch $@

findings-run: ## what a full run found, into docs/ and README.md: make findings CONFIG=config/config.yaml
	@$(call run,$(SET_UP) setup && $(GOLDILOCKS) findings $(CONFIG))

arxiv-run: ## the paper's source as one archive, tried out: make arxiv [CONFIG=config/config.yaml]
	@$(call run,$(SET_UP) setup tex && $(SNAKEMAKE) --configfile $(CONFIG) && $(GOLDILOCKS) arxiv $(CONFIG))

pins: ## pin every conda environment for this platform (envs/*.pin.txt), which Snakemake then takes; needs conda
	@command -v conda >/dev/null || command -v mamba >/dev/null || \
		$(call fail,make pins needs conda: install Miniforge (https://conda-forge.org/download) and run it again)
	@command -v snakedeploy >/dev/null || \
		$(call fail,make pins needs snakedeploy: conda install -c conda-forge -c bioconda snakedeploy)
	@snakedeploy pin-conda-envs envs/compute.yaml envs/plot.yaml envs/latex.yaml

keys-run: ## the keys of configurations: their tables in config/README.md, and schema.json for editors
	@$(call run,$(SET_UP) setup && PYTHONPATH=scripts $(BIN)/python -m goldilocks_zone.config.documentation)

variables-run: ## the tables of measured variables in results/README.md
	@$(call run,$(SET_UP) setup && PYTHONPATH=scripts $(BIN)/python -m goldilocks_zone.measurements.documentation)

figure-list-run: ## the table of figures in figures/README.md
	@$(call run,$(SET_UP) setup && PYTHONPATH=scripts $(BIN)/python -m goldilocks_zone.figures.registry)

compare-run: ## where two runs differ: make compare A=quick B=full [TOLERANCE=1e-6]
	@$(call run,[ -n "$(A)" -a -n "$(B)" ] || $(call fail,make compare needs two runs: make compare A=quick B=full); \
		$(SET_UP) setup && $(GOLDILOCKS) compare "$(A)" "$(B)" --tolerance $(or $(TOLERANCE),1e-6))

orphans-run: ## results that no configuration in config/ names; REMOVE=yes removes them
	@$(call run,[ -z "$(filter-out yes,$(REMOVE))" ] || $(call fail,REMOVE=$(REMOVE) is unknown: use REMOVE=yes or leave it out); \
		$(SET_UP) setup && $(GOLDILOCKS) orphans $(if $(REMOVE),--remove))

bench-run: ## what curvature and training cost by these engines and by other ways
	@$(call run,$(SET_UP) setup .venv-bench/installed && for part in curvature spectrum training plot; do \
		$(WITH_SCRIPTS) $(BIN)/python -m benchmarks $$part || exit 1; done)

clean-run: ## remove everything generated but the datasets; RUN=quick removes one run alone
	@$(call run,$(WITH_SCRIPTS) $(PYTHON) -m goldilocks_zone clean "$(RUN)")

test-run: ## all tests but the weekly ones, and the style of the code; builds the quick run to the paper once
	@$(call run,$(SET_UP) setup tex programs .venv-slurm/installed && $(SET_UP) lint && $(PYTEST) -m "not weekly" $(ALONE) && \
		$(PYTEST_SIDE_BY_SIDE) -m "not weekly" $(addprefix --ignore=,$(ALONE)))

test-weekly-run: ## the tests that make test leaves out: minutes long, or many repetitions
	@$(call run,$(SET_UP) setup tex programs .venv-slurm/installed && $(PYTEST) -m weekly)

check-run: ## the fast tests and the style of the code, a few minutes
	@$(call run,$(SET_UP) setup && $(SET_UP) lint && $(PYTEST_SIDE_BY_SIDE) -m "not slow and not weekly")

lint: setup ## the style of code and rules, imports that run one way, and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/snakefmt --check workflow
	@PYTHONPATH=scripts $(BIN)/lint-imports --no-cache --no-logo
	@$(BIN)/basedpyright

setup: .venv/installed ## the Python environment .venv, from the lock requirements.txt

.venv/installed: requirements.txt
	@$(refuse_path)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		$(call fail,$(PYTHON) is missing or older than 3.11: install a newer Python and name it with make PYTHON=/path/to/python3)
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { $(as_root) && $(apt_get_install) python3-venv >/dev/null; } || \
		$(call fail,$(PYTHON) cannot make virtual environments: sudo apt-get install python3-venv)
	@free=$$(df -Pm . | awk 'NR==2 {print $$4}'); [ -f $@ ] || [ "$$free" -ge $(PYTHON_MIB) ] || \
		$(call fail,the Python environment needs $(PYTHON_MIB) MiB and this disk has $$free MiB free: make room)
	@echo "Setting up Python in .venv (a few minutes, about 6 GB on Linux)"
	@$(PYTHON) -m venv .venv && $(BIN)/pip install --quiet --no-compile --disable-pip-version-check -r requirements.txt || \
		$(call fail,pip could not set up .venv: its message stands above)
	@# Bytecode once: with PYTHONDONTWRITEBYTECODE every job would spend seconds on compiling torch.
	@$(BIN)/python -m compileall -q -j 0 .venv/lib >/dev/null 2>&1 || true
	@touch $@

.venv-slurm/installed: envs/slurm.txt | setup
	@rm -rf .venv-slurm && $(BIN)/pip install --quiet --disable-pip-version-check --no-deps --target .venv-slurm -r $< || \
		$(call fail,pip could not set up .venv-slurm: its message stands above)
	@touch $@

.venv-bench/installed: envs/benchmarks.txt | setup
	@echo "Setting up the libraries to compare with in .venv-bench"
	@rm -rf .venv-bench && $(BIN)/pip install --quiet --disable-pip-version-check --no-deps --target .venv-bench -r $< || \
		$(call fail,pip could not set up .venv-bench: its message stands above)
	@touch $@

tex: ## TeX, through the system's package manager when latexmk is missing
	@command -v latexmk >/dev/null || command -v tectonic >/dev/null || { \
		$(as_root) || $(call fail,the paper needs latexmk and TeX: sudo apt-get install --no-install-recommends $(TEX_PACKAGES)); \
		free=$$(df -Pm /usr | awk 'NR==2 {print $$4}'); [ "$$free" -ge $(TEX_MIB) ] || \
			$(call fail,TeX needs $(TEX_MIB) MiB and /usr has $$free MiB free: make room); \
		echo "Installing TeX (about two minutes)"; $(apt_get_install) $(TEX_PACKAGES) >/dev/null || \
			$(call fail,apt-get could not install TeX: its message stands above); }

programs: ## the browser and the SLURM that tests start, through the system's package manager when they are missing
	@command -v chromium chromium-browser google-chrome >/dev/null || $(call install_for_tests,chromium)
	@{ command -v slurmctld && command -v slurmd && command -v munged; } >/dev/null || \
		$(call install_for_tests,slurm-wlm munge)

# Without it, its tests are skipped or, where CI is set, fail.
install_for_tests = { $(as_root) && echo "Installing $(1) for tests" && $(apt_get_install) $(1) >/dev/null; } || \
	[ -z "$$CI" ] || $(call fail,the tests need $(1): sudo apt-get install --no-install-recommends $(1))
as_root = { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; }
apt_get_install = apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
	-o DPkg::Lock::Timeout=300

lock: ## write requirements.txt from requirements.in, in a fresh environment
	@rm -rf .venv-lock && $(PYTHON) -m venv .venv-lock
	@.venv-lock/bin/pip install --quiet --disable-pip-version-check -r requirements.in
	@{ echo "# Written by make lock from requirements.in."; .venv-lock/bin/pip freeze --all --exclude pip --exclude wheel | \
		sed -E '/^(nvidia-|cuda-|triton)/ s/$$/ ; sys_platform == "linux" and platform_machine == "x86_64"/'; } > requirements.txt
	@.venv-lock/bin/python envs/lock_review.py > envs/review.txt
	@rm -rf .venv-lock
