# `make demo` and `make test` each set up everything they need in .venv.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
COVERAGE := $(CURDIR)/build/coverage

.PHONY: demo test coverage test-all check format bench lock clean

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "zerotrust needs CPython 3.11 or newer; name one with: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@echo "setting up $(VENV) (once; some seconds) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip --disable-pip-version-check install -q --require-hashes -r constraints.txt
	@$(BIN)/python -m pip --disable-pip-version-check install -q --no-deps --no-build-isolation -e .
	@touch $@

demo: $(STAMP) ## three services under attack; exit 0 only if every forged call was refused
	@$(BIN)/python examples/demo/demo.py

test: $(STAMP) ## the whole test suite
	@$(BIN)/python -m pytest -n 2 --dist worksteal -q

coverage: $(STAMP) ## branch coverage: all of core and of the CA's brain, 95 % of the whole
	@rm -rf $(COVERAGE) && mkdir -p $(COVERAGE)
	@COVERAGE_FILE=$(COVERAGE)/data $(BIN)/python -m pytest -n 2 --dist worksteal -q --cov=zerotrust --cov-report=
	@COVERAGE_FILE=$(COVERAGE)/data $(BIN)/coverage report --fail-under=95 | tail -n 1
	@COVERAGE_FILE=$(COVERAGE)/data $(BIN)/coverage report --fail-under=100 \
	  --include='src/zerotrust/core/*,src/zerotrust/ca/authority/*'

test-all: ## the tests on every CPython from 3.11 on that this machine has
	@for v in 3.11 3.12 3.13 3.14; do \
	  if command -v python$$v >/dev/null && python$$v -c '' 2>/dev/null; then echo "== CPython $$v"; \
	    $(MAKE) --no-print-directory test PYTHON=python$$v VENV=.venv-$$v || exit 1; \
	  else echo "== CPython $$v: not on this machine, skipped"; fi; done

check: $(STAMP) ## what CI runs before the tests: format, lint, types, import contracts
	@$(BIN)/ruff format --check src tests examples bench
	@$(BIN)/ruff check src tests examples bench
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache

format: $(STAMP)
	@$(BIN)/ruff format src tests examples bench
	@$(BIN)/ruff check --fix src tests examples bench

bench: $(STAMP) ## ratios against a baseline of the same minute -> bench/results.json
	@$(BIN)/python -m bench

lock: ## resolve constraints.txt anew (needs uv)
	uv pip compile --universal --python-version 3.11 --generate-hashes --upgrade --all-extras --group dev \
	  --no-emit-package zerotrust-kit --no-header --no-annotate pyproject.toml -o constraints.txt

clean:
	rm -rf .venv .venv-* .mypy_cache .ruff_cache .pytest_cache .hypothesis
