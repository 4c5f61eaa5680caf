# Each target runs the setup that it needs, which is quick if it is already done.
# PYTHON=... selects the interpreter (3.10 to 3.14) for a new .venv,
# ADAPTER=hyperbolic fine-tunes the quickstart's CLIP in hyperbolic space,
# ENCODER=eva02 or siglip gives it a CLIP of another kind,
# SEEDS=3 compares the methods of the ablation over three seeds, HARD=1 on harder data,
# FIGURES=all or FIGURES="parity quickstart" chooses the figures to print again.

ADAPTER := oft
ENCODER := clip
QUICKSTART = output/quickstart$(if $(filter-out clip,$(ENCODER)),_$(ENCODER))
SEEDS := 5
VENV := .venv
RUN := $(VENV)/bin/python
READY := $(VENV)/.ready
READY_DEV := $(VENV)/.ready-dev
# gradio needs an older Pillow than .venv has, so the page has a small environment on top of it.
DEMO_VENV := .venv-demo
DEMO_RUN := $(DEMO_VENV)/bin/python
READY_DEMO := $(DEMO_VENV)/.ready
DEMO_COVERAGE := --cov=cat_seg/app --cov-config=tests/app/coverage.ini
# Without a browser, the page itself is not tested.
DEMO_COVERAGE += $(if $(shell command -v chromium),--cov-fail-under=90)
# What depends on Pillow, and is tested with both versions of it.
WITH_PILLOW := tests/app tests/visualization tests/data/test_decoding.py tests/data/test_reading.py
# One process per core, one thread each. Tests of a file run in one process: they share fixtures.
# Do not start with the files that have the most tests, since those are quick.
PARALLEL := -n auto --maxprocesses 4 --max-worker-restart 0 --dist loadfile --no-loadscope-reorder
PYTEST := OMP_NUM_THREADS=1 $(RUN) -m pytest

.PHONY: help setup quickstart ablation figures demo test test-demo test-fast lint fuzz clean

help: ## list these targets
	@echo "usage: make TARGET [PYTHON=python3.14] [ADAPTER=oft|hyperbolic] [ENCODER=clip|eva02|siglip] [SEEDS=5] [HARD=1]"
	@sed -n 's/^\([a-z-]*\):.* ## \(.*\)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

setup: $(READY) ## create .venv with everything that training, evaluation and the demo need

quickstart: $(READY) ## train, evaluate and draw a small model on generated data
	$(RUN) -m tools.quickstart --output $(QUICKSTART) --adapter $(ADAPTER) --encoder $(ENCODER)

ablation: $(READY) ## compare H-CLIP, HPA, AFR, HPS-Seg and others on generated data (hours)
	$(RUN) -m tools.ablation --seeds $(SEEDS) $(if $(HARD),--hard)

figures: $(READY_DEV) ## print the figures of the documents again and compare (FIGURES=all: hours)
	$(RUN) -m tools.figures $(if $(filter all,$(FIGURES)),--all,$(FIGURES))

demo: $(READY_DEMO) ## open the page on http://127.0.0.1:7860, with the quickstart's model
	$(DEMO_RUN) -m cat_seg.cli.main demo

test: lint ## run the linter and every test, with the coverage of cat_seg
	$(PYTEST) --cov=cat_seg --cov-report=term-missing:skip-covered --cov-fail-under=90 $(PARALLEL)
	@$(MAKE) --no-print-directory test-demo

test-demo: $(READY_DEV) $(READY_DEMO) ## run the tests of the page, and of pictures with gradio's Pillow
	OMP_NUM_THREADS=1 $(DEMO_RUN) -m pytest -q $(WITH_PILLOW) $(DEMO_COVERAGE)

test-fast: lint ## run the linter and the quick tests, for everyday work
	$(PYTEST) -q -m "not slow" $(PARALLEL)

lint: $(READY_DEV) ## check style, formatting and types
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

fuzz: $(READY_DEV) ## fuzz the file readers for ten minutes; failing inputs go to output/fuzz
	$(RUN) -m tests.fuzz --minutes 10

clean: ## remove caches and build outputs, but not .venv and output/
	rm -rf build dist *.egg-info .hypothesis .pytest_cache .ruff_cache .mypy_cache .coverage
	find . -path './.venv*' -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): requirements.txt tools/set_up.sh tools/install_detectron2.py
	@echo "Setting up (the first time, this downloads about 3 GB for PyTorch and its CUDA libraries)"
	@bash tools/set_up.sh $(VENV) requirements.txt
	@$(RUN) tools/install_detectron2.py
	@touch $@

$(READY_DEV): $(READY) tests/requirements.txt pyproject.toml
	@bash tools/set_up.sh $(VENV) tests/requirements.txt
	@touch $@

$(READY_DEMO): $(READY) tests/app/requirements.txt cat_seg/app/requirements.txt
	@PYTHON=$(RUN) bash tools/set_up.sh $(DEMO_VENV) tests/app/requirements.txt $(VENV)
	@touch $@
