# make lab, make course, make test: that is all that most people need. Everything lands in .venv.
PYTHON ?= python3
DATASET ?= SAMPLE
EPOCHS ?=
BIN := .venv/bin
SHELL := bash
PIP := -m pip install --disable-pip-version-check --progress-bar off
# Of pip's hundreds of lines: a package of 10 MB or more with its size, and the last step.
BRIEFLY := | sed -unE -e 's/^ *(Downloading|Using cached) ([^-]+-[^-]+)-.*\(([0-9]{2,}[.0-9]* MB)\)/  \2, \3/p' \
  -e 's/^Installing collected .*/Installing the packages: this takes some minutes/p'

.PHONY: setup setup-all course lab demo solutions site colab publish test test-lowest bench mutants audit lint \
  format lock notebooks figures clean

setup: .venv/installed

.venv/installed: requirements-course.lock pyproject.toml
	@$(PYTHON) -c 'import sys; (3, 11) <= sys.version_info < (3, 14) or sys.exit("Python 3.11 to 3.13 is needed: make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	@echo 'Fetching the packages of the course, about 0.9 GB. The large ones:'
	@set -o pipefail; $(BIN)/python $(PIP) --require-hashes -r requirements-course.lock $(BRIEFLY)
	@$(BIN)/python $(PIP) --quiet --no-deps --no-build-isolation -e .
	@$(BIN)/python -m ipykernel install --sys-prefix --name python3 >/dev/null
	@touch $@

# What tests, lint and the site need beside them, and JAX.
setup-all: .venv/installed-all

.venv/installed-all: .venv/installed requirements.lock
	@echo 'Fetching what tests and site need as well, about 0.2 GB. The large ones:'
	@set -o pipefail; $(BIN)/python $(PIP) --require-hashes -r requirements.lock $(BRIEFLY)
	@touch $@

course: setup
	$(BIN)/python notebooks/run.py --dataset $(DATASET) $(if $(EPOCHS),--epochs $(EPOCHS))

lab: setup
	$(BIN)/jupyter lab --config notebooks/lab.py

# A page for people who do not read code: drop a photo, see its faces.
demo: setup
	$(BIN)/python notebooks/photo_page.py

# The notebooks with the exercises solved: solutions/.
solutions: setup
	$(BIN)/python notebooks/run.py --solutions

# The course as a web site, from the stored outputs: results/site/index.html. The faces of its first
# page are drawn when they are missing or the network has changed, which takes half a minute.
site: setup-all
	$(BIN)/python -m sphinx -q -W --keep-going -c notebooks/site notebooks results/site

# One zip to upload to Colab: build/fer-course.zip.
colab: setup
	$(BIN)/python notebooks/publish.py colab

publish: setup
	$(BIN)/python notebooks/publish.py address $(REPO)

# Notebooks first: they are the longest, and two processes should end at about the same time.
PYTEST := -m pytest notebooks tests --nbval --nbval-current-env --nbval-cell-timeout 1200 \
  -n 2 --dist loadfile --no-loadscope-reorder --durations 10

test: setup-all lint
	TQDM_DISABLE=1 $(BIN)/python $(PYTEST)

# The whole course and its tests on the lowest versions that are claimed, which are Colab's.
LOWEST := .venv-lowest/bin

test-lowest: .venv-lowest/installed
	$(LOWEST)/python notebooks/run.py
	TQDM_DISABLE=1 $(LOWEST)/python $(PYTEST)

.venv-lowest/installed: tests/colab-constraints.txt pyproject.toml
	$(PYTHON) -m venv .venv-lowest
	$(LOWEST)/python -m pip install --quiet --disable-pip-version-check -c tests/colab-constraints.txt 'setuptools>=77' -e '.[lab,test,jax,export,video]'
	$(LOWEST)/python -m ipykernel install --sys-prefix --name python3 >/dev/null
	touch $@

# Breaks the code on purpose and counts what the tests find: tests/RELIABILITY.md. An hour.
mutants: setup-all
	$(BIN)/python -m pip install --quiet --disable-pip-version-check mutmut==3.8.1
	TQDM_DISABLE=1 $(BIN)/python tests/mutants.py

# Looks the locked packages up in the list of known vulnerabilities.
audit:
	$(PYTHON) -m venv .venv-audit
	.venv-audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit
	.venv-audit/bin/python tests/audit.py

# Speed and memory against a yardstick: tests/benchmarks/RESULTS.md. An hour; with QUICK=1, minutes.
bench: setup-all
	$(BIN)/python tests/benchmarks/bench.py $(if $(QUICK),--quick) $(if $(DATA),--data-dir $(DATA))

lint: setup-all
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/codespell

format: setup-all
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Runs the notebooks on SAMPLE and stores their outputs in place.
notebooks: setup-all
	$(BIN)/python notebooks/run.py --store
	$(BIN)/python notebooks/publish.py bars

# After new weights are shipped: all that tells what they score. An hour and a half; DATA is the folder
# with FER/ (its zip) and UTKFACE/.
figures: setup-all
	$(BIN)/python -m fer_helpers.studies shipped $(if $(DATA),--data-dir $(DATA))
	$(MAKE) notebooks bench

lock:
	uv pip compile pyproject.toml --extra lab --extra test --extra jax --extra export --extra site --extra video --universal \
	  --python-version 3.11 --generate-hashes --no-emit-index-url -o requirements.lock
	uv pip compile pyproject.toml --extra lab --extra export -c requirements.lock --universal \
	  --python-version 3.11 --generate-hashes --no-emit-index-url -o requirements-course.lock

clean:
	rm -rf .venv .venv-lowest .venv-audit results solutions build mutants *.egg-info
