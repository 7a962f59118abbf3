# make run: serve. make test: the whole test suite. Both install what they need, once.
PYTHON ?= python3
BIN := .venv/bin
.DEFAULT_GOAL := help
.PHONY: help run test lint format bench goodput clean

help:
	@echo "make run      serve on 0.0.0.0:5000 (keys from key.txt, settings from .env)"
	@echo "make test     run the whole test suite"
	@echo "make lint     check style and types"
	@echo "make bench    measure speed and memory, beside nginx and the obvious stack"
	@echo "make goodput  count answers against what limits allow (three minutes)"

run: .venv/installed
	@exec $(BIN)/python manage.py serve

test: .venv/installed-dev .venv/clients/installed
	LC_ALL=C.UTF-8 $(BIN)/python -m pytest -n 4 --dist loadgroup

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: .venv/installed-dev
	$(BIN)/python -m bench

goodput: .venv/installed-dev
	$(BIN)/python -m bench.goodput

clean:
	rm -rf .venv

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed."; exit 1; }
	@$(PYTHON) -m venv .venv || { echo "On Debian and Ubuntu: apt-get install python3-venv"; rm -rf .venv; exit 1; }

.venv/installed: requirements.txt | .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

.venv/installed-dev: requirements.txt requirements-dev.txt | .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@ .venv/installed

# Clients that do not fit into one environment with ours; the tests run them from there.
.venv/clients/installed: requirements-clients.txt | .venv/bin/python
	@$(PYTHON) -m venv .venv/clients
	.venv/clients/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-clients.txt
	@touch $@
