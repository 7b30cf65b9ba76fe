# Every target sets up what it needs first; with .venv/ as the lock says, that takes no time. ARGS go to the program:
#   make run ARGS="--set train.steps=300"

PYTHON := .venv/bin/python

# The proof, and the readers of all that it is checked against.
TRUSTED_BASE := components/task/*,components/proof/weights.py,components/proof/interval.py,components/proof/certificate.py,components/proof/checker.py,components/formats/table.py,components/formats/crc32c.py,components/formats/tfrecords.py,components/formats/strict_protos.py,components/formats/protos.py,components/savedmodel/checkpoint.py,components/savedmodel/model_files.py,components/savedmodel/canonical_graph.py,components/savedmodel/graph_identity.py

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup run check lint format typecheck test-fast coverage test test-long airflow-test release-check bench campaign airflow airflow-stop lock clean

help:  ## these lines
	@sed -n 's/^\([a-z-]*\):.*## /\1 - /p' Makefile | while read -r target _ text; do printf 'make %-13s %s\n' "$$target" "$$text"; done

setup:  ## make the Python environment .venv/, or repair it
	@requirements/install.sh

run: setup  ## the whole pipeline: generate, validate, train, evaluate, push, serve, ask
	@.venv/bin/bitsum run $(ARGS)

check: lint typecheck test-fast  ## before each commit: make lint, make typecheck, make test-fast

lint: setup  ## formatting, lint rules and the import contracts; changes nothing
	@.venv/bin/ruff format --check
	@.venv/bin/ruff check
	@.venv/bin/lint-imports

format: setup  ## format the sources
	@.venv/bin/ruff format

typecheck: setup  ## check the types
	@.venv/bin/mypy

test-fast: setup  ## the tests that need neither TFX nor Beam nor servers, under a minute
	@$(PYTHON) -m pytest -m fast --numprocesses=2 $(ARGS)

coverage: setup  ## branch coverage of components by its fast tests; below 100 % of the trusted base is a failure
	@$(PYTHON) -m pytest tests/components -m fast --numprocesses=2 --cov --cov-report=term $(ARGS)
	@.venv/bin/coverage report --include=$(TRUSTED_BASE) --fail-under=100

test: setup  ## all tests but those of make test-long and make airflow-test
	@$(PYTHON) -m pytest -m "not long and not airflow" --numprocesses=2 --dist=loadfile $(ARGS)

test-long: setup  ## the tests that take minutes: whole runs, beside and after one another, and of other tasks
	@$(PYTHON) -m pytest -m "long and not airflow" --numprocesses=2 --dist=loadfile $(ARGS)

airflow-test: setup  ## three spans, one poisoned and one with a worse model, by a real Airflow on temporary folders and ports
	@requirements/install-airflow.sh
	@$(PYTHON) -m pytest tests/airflow -m airflow $(ARGS)

release-check: setup  ## what is exhaustive: each operation on files and servers, failing at each of its steps
	@$(PYTHON) -m pytest tests/faults --exhaustive $(ARGS)

bench: setup  ## the server's speed, each number beside that of the bare model in one process
	@$(PYTHON) -m benchmarks.serving_throughput
	@$(PYTHON) -m benchmarks.streaming

campaign: setup  ## the measurements at full size, with their tables
	@requirements/install-airflow.sh
	@$(PYTHON) -m benchmarks.campaign

airflow: setup  ## the pipeline on a schedule: Airflow on this machine, with its own environment; prints where and how
	@requirements/install-airflow.sh
	@.uv/airflow/bin/python airflow/service.py start $(ARGS)

airflow-stop:  ## stop it, with the same ARGS
	@.uv/airflow/bin/python airflow/service.py stop $(ARGS)

lock:  ## resolve requirements/lock.txt again; ARGS=--upgrade for newer versions
	@requirements/install.sh lock $(ARGS)

clean:  ## remove the environment and what tools left; var/ (models, artifacts, logs) stays
	rm -f .venv/.setup
	rm -rf .venv .uv build .pytest_cache .hypothesis .mypy_cache .ruff_cache .import_linter_cache *.egg-info
	find airflow components pipeline serving tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
