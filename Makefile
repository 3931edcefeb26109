# Everything runs in .venv, which is made on first use and remade when the dependencies change.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The demo needs the package alone; tests, lint and documentation need every extra as well.
BASE := $(VENV)/.installed
STAMP := $(VENV)/.installed-for-development
# ptychodus drives this package in an environment of its own: its dependencies are many, and not ours.
CLIENT_VENV := .venv-clients
CLIENT_STAMP := $(CLIENT_VENV)/.installed
# Programs whose files are read here write them, in an environment of their own.
FORMATS_VENV := .venv-formats
FORMATS_STAMP := $(FORMATS_VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help demo test test-fast faults test-clients test-formats lint types safety bench docs site dist test-lowest clean

help:
	@echo "make demo   train on a simulated scan and show the image beside the truth (about four minutes)"
	@echo "make test   every test"
	@echo "make test-fast  every room without training a network (under a minute on two idle cores)"
	@echo "make faults plants small faults one at a time and says which the tests catch (an hour or two)"
	@echo "make test-clients  ptychodus 1.7.0 drives this package (under 10 minutes)"
	@echo "make test-formats  cdtools, PtyLab, HyperSpy, py4DSTEM and others write files that are read here (under 5 minutes)"
	@echo "make lint   ruff, mypy, import contracts, length of files"
	@echo "make safety  damage, faults, signals and a soak: what specs/guarantees.md counts"
	@echo "make bench  the figures of docs/benchmarks.md"
	@echo "make docs   the generated tables of specs/configuration.md, the notebooks"
	@echo "make site   the documentation as a site, in build/site-html"
	@echo "make dist   wheel and source distribution, checked for completeness (under a minute)"
	@echo "make test-lowest  the fast tests with the lowest versions that pyproject.toml allows (about 3 minutes)"
	@echo "make clean  remove what these targets made"

$(BASE): pyproject.toml constraints.txt setup.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -c constraints.txt -e . </dev/null
	@touch $@

$(STAMP): $(BASE)
	$(BIN)/pip install -q -c constraints.txt -e '.[dev]' </dev/null
	@touch $@

demo: $(BASE)
	$(BIN)/ptycho demo --output_dir demo_out </dev/null

# Two test processes on two cores: one thread each, or they fight.
test: export OMP_NUM_THREADS ?= 1
test: $(STAMP)
	$(BIN)/pytest -q -n 2 </dev/null

# What trains a network, or starts programs, is left out: see FAST in tests/conftest.py.
test-fast: export OMP_NUM_THREADS ?= 1
test-fast: $(STAMP)
	$(BIN)/pytest -q -n 2 --fast </dev/null

faults: export OMP_NUM_THREADS ?= 1
faults: $(STAMP)
	$(BIN)/python tests/faults/plant.py </dev/null

$(CLIENT_STAMP): pyproject.toml tests/clients/requirements.txt tests/clients/constraints.txt setup.py
	$(PYTHON) -m venv $(CLIENT_VENV)
	@echo '*' > $(CLIENT_VENV)/.gitignore
	$(CLIENT_VENV)/bin/pip install -q -c tests/clients/constraints.txt -r tests/clients/requirements.txt -e . </dev/null
	@touch $@

# A skipped test is a failed one here: see tests/clients/conftest.py.
test-clients: export OMP_NUM_THREADS ?= 1
test-clients: export PTYCHO_CLIENTS := required
test-clients: $(CLIENT_STAMP)
	$(CLIENT_VENV)/bin/pytest -q -n 2 --dist worksteal tests/clients </dev/null

$(FORMATS_STAMP): pyproject.toml tests/formats/requirements.txt tests/formats/constraints.txt setup.py
	$(PYTHON) -m venv $(FORMATS_VENV)
	@echo '*' > $(FORMATS_VENV)/.gitignore
	$(FORMATS_VENV)/bin/pip install -q -c tests/formats/constraints.txt -r tests/formats/requirements.txt \
		-e '.[formats,electron]' </dev/null
	@touch $@

# A skipped test is a failed one here: see tests/formats/conftest.py.
test-formats: export OMP_NUM_THREADS ?= 1
test-formats: export PTYCHO_FORMATS := required
test-formats: $(FORMATS_STAMP)
	$(FORMATS_VENV)/bin/pytest -q tests/formats tests/core/test_format_libraries.py </dev/null

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(MAKE) --no-print-directory types
	$(BIN)/lint-imports --no-cache
	$(BIN)/pytest -q tests/core/test_structure.py </dev/null

types: $(STAMP)
	$(BIN)/mypy

# Everything that specs/guarantees.md counts: damage to every format, failing writes, signals, a long life.
safety: export OMP_NUM_THREADS ?= 1
safety: $(STAMP)
	$(BIN)/pytest -q tests/safety </dev/null
	$(BIN)/python tests/safety/damage.py --count 400 </dev/null
	$(BIN)/python tests/safety/kills.py --count 30 </dev/null
	$(BIN)/python tests/safety/soak.py </dev/null

bench: $(STAMP)
	@set -e; for script in benchmarks/[a-z]*.py; do echo "== $$script"; $(BIN)/python $$script </dev/null; done

dist: $(STAMP)
	rm -rf dist
	$(BIN)/python -m build --outdir dist . </dev/null >/dev/null
	$(BIN)/python .ci/check_dist.py

# What pyproject.toml promises as its lowest versions, in an environment of its own. A CPU build of the lowest torch
# is in PyTorch's own index only: where the environment has one, `make test-lowest TORCH=2.6.0`, see .github/workflows.
LOWEST_VENV := .venv-lowest
TORCH ?= $(shell sed -n 's/^torch==//p' constraints.txt)
test-lowest: export OMP_NUM_THREADS ?= 1
test-lowest:
	$(PYTHON) -m venv $(LOWEST_VENV)
	@echo '*' > $(LOWEST_VENV)/.gitignore
	$(PYTHON) .ci/lowest.py torch=$(TORCH) formats onnx experiment > $(LOWEST_VENV)/lowest.txt
	$(LOWEST_VENV)/bin/pip install -q -c $(LOWEST_VENV)/lowest.txt -e '.[formats,onnx,experiment]' \
		'pytest>=8.3' pytest-xdist hypothesis jsonschema </dev/null
	$(LOWEST_VENV)/bin/pytest -q -n 2 --fast </dev/null
	$(LOWEST_VENV)/bin/pytest -q -n 2 tests/cli/test_main.py tests/cli/test_reconstruct_words.py \
		tests/core/test_package_ptychopinn.py tests/torch/test_inference_is_light.py </dev/null

docs: $(STAMP)
	$(BIN)/python docs/build.py </dev/null
	$(BIN)/python docs/notebooks.py </dev/null

site: $(STAMP)
	$(BIN)/pip install -q -c constraints.txt -e '.[site]' </dev/null
	$(BIN)/python docs/site.py </dev/null
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict -q </dev/null

clean:
	rm -rf $(VENV) $(LOWEST_VENV) $(CLIENT_VENV) $(FORMATS_VENV) build dist demo_out .pytest_cache .mypy_cache .ruff_cache .hypothesis ./*.egg-info
	find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +
