# Every target sets up what it needs first; with .venv/ as the lock says, that takes no time. ARGS go to the program:
#   make run ARGS="--set train.steps=300"

PYTHON := .venv/bin/python

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup run test test-fast campaign lock clean

help:  ## these lines
	@sed -n 's/^\([a-z-]*\):.*## /\1 - /p' Makefile | while read -r target _ text; do printf 'make %-10s %s\n' "$$target" "$$text"; done

setup:  ## make the Python environment .venv/, or repair it
	@requirements/install.sh

run: setup  ## the whole pipeline: generate, validate, train, evaluate, push, serve, ask
	@.venv/bin/bitsum run $(ARGS)

test: setup  ## all tests
	@$(PYTHON) -m pytest tests --numprocesses=2 --dist=loadfile $(ARGS)

test-fast: setup  ## the tests that need neither TFX nor Beam nor servers, under a minute
	@$(PYTHON) -m pytest tests/fast --numprocesses=2 $(ARGS)

campaign: setup  ## the measurements at full size, with their tables
	@$(PYTHON) -m benchmarks.campaign

lock:  ## resolve requirements/lock.txt again; ARGS=--upgrade for newer versions
	@requirements/install.sh lock $(ARGS)

clean:  ## remove the environment and what tools left; var/ (models, artifacts, logs) stays
	rm -f .venv/.setup
	rm -rf .venv .uv build .pytest_cache .hypothesis *.egg-info
	find components pipeline serving tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
