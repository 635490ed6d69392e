.DEFAULT_GOAL := help
BIN := .venv/bin
# A file is one process's, and the directories with the slow ones come first.
IN_PARALLEL := -n 3 --dist loadfile --no-loadscope-reorder

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

setup: ## install Python packages into .venv, and RabbitMQ and PostgreSQL where they are missing
	@sandbox/setup python services

demo: ## the main job on real input, on private services
	@sandbox/setup python services
	@$(BIN)/python -m sandbox demo

test: ## every test, against real RabbitMQ and PostgreSQL
	@sandbox/setup python services node prometheus curl
	@$(BIN)/pytest $(IN_PARALLEL)

check: ## format, lint, types, import contracts, unit tests; under a minute
	@sandbox/setup python
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -q -n 2 --dist loadfile tests/unit

bench: ## events per second, CPU and memory beside a bare loop
	@sandbox/setup python services bench
	@$(BIN)/python -m tests.bench

peers: ## what else does this job, FastStream and Celery, for `python -m tests.faults peers`
	@sandbox/setup python services
	@test -x .sandbox/peers/bin/pip || $(BIN)/python -m venv --clear .sandbox/peers
	.sandbox/peers/bin/pip install -q --disable-pip-version-check -r tests/faults/peers/requirements.txt

faults: ## the proof that nothing is lost: every fault that we can produce, under load; an hour and a half
	@sandbox/setup python services
	@$(BIN)/python -m tests.faults

run: ## a worker and the HTTP ingress, with the settings of the environment and .env; when one ends, so does the other
	@sandbox/setup python
	@bash -c 'trap "kill \$$(jobs -p) 2>/dev/null; wait" EXIT; trap "exit 130" INT; trap "exit 0" TERM; \
		$(BIN)/image-uploads worker & $(BIN)/image-uploads-producer api & wait -n'

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

.PHONY: help setup demo test check bench faults peers run format lock clean
