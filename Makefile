.DEFAULT_GOAL := help
BIN := .venv/bin

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

setup: ## install Python packages into .venv, and RabbitMQ and PostgreSQL where they are missing
	@sandbox/setup python services

demo: ## the main job on real input, on private services
	@sandbox/setup python services
	@$(BIN)/python -m sandbox demo

test: ## every test, against real RabbitMQ and PostgreSQL
	@sandbox/setup python services node prometheus
	@$(BIN)/pytest

check: ## format, lint, types, import contracts, unit tests; under a minute
	@sandbox/setup python
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -q tests/unit

bench: ## events per second, CPU and memory beside a bare loop
	@sandbox/setup python services bench
	@$(BIN)/python -m tests.bench

run: ## a worker with the settings of the environment and .env
	@sandbox/setup python
	@$(BIN)/python -m consumer worker

format: ## format and mend what ruff can
	@sandbox/setup python
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock: ## pin every dependency anew, with hashes and no addresses
	@sandbox/setup python
	$(BIN)/uv pip compile -q pyproject.toml --universal --generate-hashes --no-emit-index-url --no-header -o requirements.lock
	$(BIN)/uv pip compile -q pyproject.toml --extra dev -c requirements.lock --universal --generate-hashes --no-emit-index-url --no-header -o requirements-dev.lock

clean: ## stop the sandbox and remove what the targets made
	@test ! -x $(BIN)/python || $(BIN)/python -m sandbox down
	rm -rf .venv .sandbox

.PHONY: help setup demo test check bench run format lock clean
