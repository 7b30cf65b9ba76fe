# Every target first makes the environment that it needs; an up-to-date one takes no time. ARGS go to the program:
#   make run ARGS="--set train.steps=300"

PYTHON := .venv/bin/python

# The checker of the proof, and the readers of its input.
TRUSTED_BASE := components/task/*,components/proof/weights.py,components/proof/interval.py,components/proof/certificate.py,components/proof/checker.py,components/formats/table.py,components/formats/crc32c.py,components/formats/tfrecords.py,components/formats/strict_protos.py,components/formats/protos.py,components/formats/map_order.py,components/savedmodel/checkpoint.py,components/savedmodel/model_files.py,components/savedmodel/canonical_graph.py,components/savedmodel/graph_identity.py

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup run check lint format typecheck test-fast coverage test test-long airflow-test lanes release-check bench campaign airflow airflow-stop lock clean

help:  ## print these lines
	@sed -n 's/^\([a-z-]*\):.*## /\1 - /p' Makefile | while read -r target _ text; do printf 'make %-13s %s\n' "$$target" "$$text"; done

setup:  ## make the Python environment .venv/, or repair it
	@requirements/install.sh

run: setup  ## run the whole pipeline: generate, validate, train, evaluate, prove, push, serve, query
	@.venv/bin/bitsum run $(ARGS)

check: lint typecheck test-fast  ## run lint, typecheck and test-fast, before each commit

lint: setup  ## check formatting, lint rules and import contracts; changes nothing
	@.venv/bin/ruff format --check
	@.venv/bin/ruff check
	@.venv/bin/lint-imports

format: setup  ## format the sources
	@.venv/bin/ruff format

typecheck: setup  ## check the types
	@.venv/bin/mypy

test-fast: setup  ## run the tests without TFX, Beam and servers, under a minute
	@$(PYTHON) -m pytest -m "fast and not slow" --numprocesses=2 $(ARGS)

coverage: setup  ## measure branch coverage by the fast tests; fail below 100 % of the trusted base
	@$(PYTHON) -m pytest -m fast --numprocesses=2 --cov --cov-report=term $(ARGS)
	@.venv/bin/coverage report --include=$(TRUSTED_BASE) --fail-under=100

test: setup  ## run all tests except test-long and airflow-test
	@$(PYTHON) -m pytest -m "not long and not airflow" --numprocesses=2 --dist=loadfile $(ARGS)

test-long: setup  ## run the tests that take minutes each: whole, concurrent and killed runs, and other tasks
	@$(PYTHON) -m pytest -m "long and not airflow" --numprocesses=2 --dist=loadfile $(ARGS)

airflow-test: setup  ## run three spans, one poisoned and one with a worse model, with a real Airflow
	@requirements/install-airflow.sh
	@$(PYTHON) -m pytest tests/airflow -m airflow $(ARGS)

lanes:  ## run the project on a fresh machine with the other Debian; as root
	@.ci/lanes $(ARGS)

release-check: setup  ## run make lanes, then make each operation on files and servers fail at each of its steps
	@.ci/lanes --required
	@$(PYTHON) -m pytest tests/faults --exhaustive $(ARGS)

bench: setup  ## measure the server's speed, relative to the bare model
	@$(PYTHON) -m benchmarks.serving_throughput
	@$(PYTHON) -m benchmarks.streaming

campaign: setup  ## run the measurements at full size, and print their tables
	@requirements/install-airflow.sh
	@$(PYTHON) -m benchmarks.campaign

airflow: setup  ## start Airflow on this machine, in its own environment, and print its address
	@requirements/install-airflow.sh
	@.uv/airflow/bin/python airflow/service.py start $(ARGS)

airflow-stop:  ## stop Airflow; takes the ARGS of make airflow
	@.uv/airflow/bin/python airflow/service.py stop $(ARGS)

lock:  ## resolve the locks of both lanes again; ARGS=--upgrade for newer versions
	@requirements/install.sh lock $(ARGS)

clean:  ## remove the environments and caches; var/ (models, artifacts, logs) stays
	rm -f .venv/.setup
	rm -rf .venv .uv build .pytest_cache .hypothesis .mypy_cache .ruff_cache .import_linter_cache .coverage* *.egg-info
	find airflow components pipeline serving tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
