# Needs Python 3.11 and make, nothing else: the first target makes a virtual environment and fills it.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
OUT ?= out/demo
WORKERS ?= 2
# Which mutants `make mutation` tries, by module and function; all of them take hours.
MUTANTS ?= 'jedi_diffusion.joint.*'
# For instance: make demo PIP_FLAGS="--extra-index-url https://download.pytorch.org/whl/cpu"
PIP_FLAGS ?=

# Test workers share the machine: one thread each, or they fight over the cores.
TEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS)

.PHONY: demo docs train-bundled test test-slow test-ray mutation lint format clean

demo: $(READY)
	$(BIN)/jedi demo --out $(OUT) --overwrite

test: $(READY)
	$(TEST)

test-slow: $(READY)
	$(TEST) -m slow

# One process: each of these tests starts a Ray of its own.
test-ray: $(VENV)/.ray
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m ray

# The documentation as a site, in site/; a link that leads nowhere is an error.
docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet
	@echo "The site begins at site/index.html"

# One process: each mutant is a fork. Goes on where it was stopped; `mutmut results` lists what no test noticed.
mutation: $(READY)
	OMP_NUM_THREADS=1 nice $(BIN)/mutmut run --max-children 1 $(MUTANTS)

# The long training of the bundled model, beside other work: make train-bundled FOLDER=../long MINUTES=120
train-bundled:
	tools/train_bundled.sh "$(FOLDER)" "$(MINUTES)"

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(VENV)/.ray: $(READY)
	$(BIN)/python -m pip install $(PIP_FLAGS) -c constraints.txt -e '.[synthesis-ray,serve-ray]'
	touch $@

$(VENV)/.docs: $(READY)
	$(BIN)/python -m pip install $(PIP_FLAGS) -c constraints.txt mkdocs-material
	touch $@

# The stamp is written last, so an interrupted installation is done again, and newer pins refresh it.
$(READY): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "No python3.11 or python3 found: set PYTHON=/path/to/python3.11" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: set PYTHON=")'
	test -x $(BIN)/python || "$(PYTHON)" -m venv $(VENV)
	$(BIN)/python -m pip install $(PIP_FLAGS) -c constraints.txt -e '.[train,data,app,imagenet,enlarge,showroom,dev]'
	touch $@

clean:
	rm -rf $(VENV) out site mutants .pytest_cache .mypy_cache .ruff_cache
