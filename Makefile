# Every target sets up what it needs first. The two that a newcomer needs: `make demo`, `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help setup demo test check bench chaos stack stack-build stack-validate stack-demo e2e proto proto-baseline metrics dashboards environment constraints format clean

help: ## Show this list.
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 18

setup: $(STAMP) ## Make the virtual environment in .venv, everything pinned.

$(STAMP): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing pinned dependencies into $(VENV) …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: setup ## Run the main job on real access logs; KEEP=1 leaves it running.
	@$(BIN)/meterscope demo $(if $(KEEP),--keep) $(DEMO_ARGS)

test: setup ## Run the tests against real PostgreSQL, Valkey, gRPC servers and workers.
	@$(BIN)/python -m pytest $(TEST_ARGS)

chaos: setup ## Kill every kind of process during ingest and count what is left (minutes).
	@$(BIN)/python -m pytest -m chaos --timeout 900 $(TEST_ARGS)

stack: stack-build ## Run the real collector, Prometheus, Jaeger and Loki on loopback, without containers.
	@$(BIN)/python scripts/stack.py run $(STACK_ARGS)

stack-build: setup ## Build those programs into the user's cache, once (needs Go; minutes).
	@$(BIN)/python scripts/stack.py build

stack-validate: stack-build ## Let each of them check its configuration, overlays included.
	@$(BIN)/python scripts/stack.py validate

stack-demo: stack-build ## Run the main job through the stack and say where to look.
	@$(BIN)/python scripts/stack.py demo $(STACK_ARGS) -- $(DEMO_ARGS)

e2e: stack-build ## Test every signal on the real stack.
	@$(BIN)/python -m pytest tests/stack -m stack --timeout 300 $(TEST_ARGS)

check: setup ## Lint, types, import rules, proto lint, compatibility and drift, secrets, alert rules (builds promtool once).
	@$(BIN)/ruff format --check --quiet . || { echo "run: make format"; exit 1; }
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@PATH="$(abspath $(BIN)):$$PATH" scripts/proto check
	@$(BIN)/python scripts/tree.py
	@$(BIN)/python scripts/stack.py build prometheus
	@$(BIN)/python scripts/stack.py rules

bench: setup ## Measure against the limits and save ratios in bench/results.
	@$(BIN)/python -m bench.ingest $(BENCH_ARGS)

proto: setup ## Generate the stubs and the described contract from protos/.
	@PATH="$(abspath $(BIN)):$$PATH" scripts/proto generate

proto-baseline: setup ## Accept the protos as they are as what later changes are compared with.
	@PATH="$(abspath $(BIN)):$$PATH" scripts/proto baseline

metrics: setup ## Write docs/metrics.md from the declared instruments.
	@$(BIN)/python scripts/instruments.py > docs/metrics.md

dashboards: setup ## Write Grafana's dashboards and docs/dashboards.md from scripts/dashboards.
	@$(BIN)/python -m scripts.dashboards

environment: setup ## Write .env.example from the settings.
	@$(BIN)/python scripts/environment.py > .env.example

constraints: setup ## Write the installed versions to constraints.txt.
	@$(BIN)/python -m pip freeze --exclude-editable --exclude pip --exclude setuptools > constraints.txt

format: setup ## Format the code.
	@$(BIN)/ruff format --quiet . && $(BIN)/ruff check --quiet --fix .

clean: ## Remove what was built; the data folder .meterscope stays.
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
