# make install   set up .venv with the locked versions (on Linux a download of about 3 GB)
# make run       run every notebook and write runs/quick/report.html (PROFILE=smoke|quick|standard|paper)
# make book      make an offline book of the executed notebooks: runs/quick/book/index.html (PROFILE as above)
# make slides    make slides of the executed lessons: runs/quick/slides (PROFILE as above)
# make wheelhouse  collect all packages as files in wheelhouse/, for a set-up without a network (docs/teaching.md)
# make test      run the tests, a process per core (PYTEST_ARGS="-k losses" runs some of them)
# make lab       open the notebooks in JupyterLab
# make lint      check style, format and the order of the modules; make format mends the first two
# make clean     remove caches, runs/ and the generated data set; your own data sets under data/ stay
# make distclean also remove .venv
#
# Choices: PYTHON=python3.12     the Python that .venv is made from: 3.11, 3.12 or 3.13
#          EXTRA=cpu|gpu         faiss-cpu or faiss-gpu; default: gpu where an NVIDIA driver answers
#          WITH="hover cluster"  optional parts: hover (interactive maps), cluster (several machines), slides

SHELL := /bin/bash
.DELETE_ON_ERROR:

PYTHON ?= python3
PROFILE ?= quick
EXTRA := $(or $(EXTRA),$(shell if nvidia-smi -L 2>/dev/null | grep -q '^GPU '; then echo gpu; else echo cpu; fi))
VENV := .venv

PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check
OTHER_FAISS := $(if $(filter gpu,$(EXTRA)),faiss-cpu,faiss-gpu)
FITS := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
# Terminals and notebooks started from here find the mmt of .venv.
IN_VENV := PATH="$(abspath $(VENV)/bin):$$PATH"

ifeq ($(filter cpu gpu,$(EXTRA)),)
$(error EXTRA=$(EXTRA) is unknown: it is cpu or gpu)
endif
ifneq ($(filter-out hover cluster slides,$(WITH)),)
$(error WITH=$(WITH) is unknown: it takes any of hover, cluster and slides)
endif

.PHONY: help install run book slides wheelhouse test lab lint format lock clean distclean

help:
	@sed -n '/^$$/q; s/^# \{0,1\}//p' Makefile

install: $(VENV)/.installed-$(EXTRA) $(WITH:%=$(VENV)/.installed-%)
	@echo "mmtlib is installed in $(VENV): $$($(PY) --version), $(EXTRA)."

# The stamp comes last, so that an interrupted set-up is taken up again. The other faiss package has to go before this
# one comes, because both fill the same folder.
$(VENV)/.installed-cpu $(VENV)/.installed-gpu: $(VENV)/.installed-%: requirements/%.txt pyproject.toml
	@$(PYTHON) -c '$(FITS)' 2>/dev/null || { \
	  echo "mmtlib needs Python 3.11, 3.12 or 3.13, but $(PYTHON) is: $$($(PYTHON) --version 2>&1)"; \
	  echo "Install one of these and name it: make install PYTHON=python3.12"; exit 1; } >&2
	@if [ -x $(PY) ] && ! $(PY) -c '$(FITS)'; then \
	  echo "$(VENV) holds $$($(PY) --version 2>&1), mmtlib needs 3.11, 3.12 or 3.13: make distclean removes it." >&2; \
	  exit 1; fi
	@$(PIP) --version >/dev/null 2>&1 || { \
	  echo "[1/3] making $(VENV) with $$($(PYTHON) --version)"; $(PYTHON) -m venv --clear $(VENV); }
	@rm -f $(VENV)/.installed-cpu $(VENV)/.installed-gpu
	@$(PIP) uninstall --quiet --yes $(OTHER_FAISS) 2>/dev/null
	@echo "[2/3] installing the locked packages of $<: minutes when they have to be downloaded"
	$(PIP) install -r $<
	@echo "[3/3] installing mmtlib itself"
	$(PIP) install --quiet --no-deps --no-build-isolation -e .
	@$(PY) -m compileall -q mmtlib
	@$(PY) -c 'from mmtlib.figures import umap_map; import numpy; umap_map(numpy.eye(64))' # compiles umap-learn's loops
	@touch $@

$(VENV)/.installed-hover $(VENV)/.installed-cluster $(VENV)/.installed-slides: $(VENV)/.installed-%: requirements/%.txt | $(VENV)/.installed-$(EXTRA)
	$(PIP) install -r $<
	@touch $@

run: install
	$(IN_VENV) $(VENV)/bin/mmt run --profile $(PROFILE) --out runs/$(PROFILE)

book: install
	$(IN_VENV) $(VENV)/bin/mmt book runs/$(PROFILE)

slides: install $(VENV)/.installed-slides
	$(IN_VENV) $(VENV)/bin/mmt slides runs/$(PROFILE)

wheelhouse: install
	$(PIP) wheel -w wheelhouse -r requirements/$(EXTRA).txt $(WITH:%=-r requirements/%.txt)
	@rm -rf build
	$(PIP) wheel -w wheelhouse --no-deps --no-build-isolation .

test: install
	$(IN_VENV) $(PY) -m pytest -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

lab: install
	$(IN_VENV) $(PY) -m jupyter lab notebooks

lint: install
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(VENV)/bin/lint-imports --no-cache --no-logo

format: install
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

# For developers: bring the locked files in line with pyproject.toml; UV_ARGS=--upgrade also moves to the newest versions.
COMPILE = $(PY) -m uv pip compile --quiet --universal --python-version 3.11 --no-annotate --no-emit-index-url \
  --no-emit-find-links --custom-compile-command "make lock" $(UV_ARGS)
EXTRA_OF_PROJECT = import sys, tomllib; project = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
  print(*project["optional-dependencies"][sys.argv[1]], sep="\n")
lock: install
	$(PIP) install --quiet uv
	$(COMPILE) pyproject.toml --extra cpu --extra dev -o requirements/cpu.txt
	$(COMPILE) pyproject.toml --extra gpu --extra dev -c requirements/cpu.txt -o requirements/gpu.txt
	$(PY) -c '$(EXTRA_OF_PROJECT)' hover | $(COMPILE) - -c requirements/cpu.txt -o requirements/hover.txt
	$(PY) -c '$(EXTRA_OF_PROJECT)' cluster | $(COMPILE) - -c requirements/cpu.txt -o requirements/cluster.txt
	$(PY) -c '$(EXTRA_OF_PROJECT)' slides | $(COMPILE) - -c requirements/cpu.txt -o requirements/slides.txt

clean:
	rm -rf runs data/pedestrians build *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -path ./$(VENV) -prune -o -path ./.git -prune -o -path ./data -prune -o \
	  -type d \( -name __pycache__ -o -name .ipynb_checkpoints \) -prune -exec rm -rf {} +

distclean: clean
	@if [ -e $(VENV)/pyvenv.cfg ]; then echo "rm -rf $(VENV)"; rm -rf $(VENV); fi
