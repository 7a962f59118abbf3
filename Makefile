# make run: serve. make test: the whole test suite. Both install what they need, once.
PYTHON ?= python3
BIN := .venv/bin
# All tests of a file run on one worker, so that they share its services.
PYTEST := -m pytest -n 2 --dist loadfile
.DEFAULT_GOAL := help
.PHONY: help run test test-postgres coverage lint format locks bench bench-nodes goodput clean

help:
	@echo "make run            serve on 0.0.0.0:5000 (keys from key.txt, settings from .env)"
	@echo "make test           run all tests, on SQLite"
	@echo "make test-postgres  run all tests except the browser tests, on a temporary PostgreSQL server"
	@echo "make coverage       run all tests, and show which lines and branches they do not reach"
	@echo "make lint           check style, types and layers"
	@echo "make locks          update requirements/*.txt from their sources (UPGRADE=--upgrade: to the newest versions)"
	@echo "make bench          measure speed and memory, compared with nginx and the obvious stack"
	@echo "make bench-nodes    measure nodes that share a PostgreSQL server, at several distances from it (three minutes)"
	@echo "make goodput        measure how many of the possible answers clients get (three minutes)"

run: .venv/installed
	@exec $(BIN)/python manage.py serve

test: .venv/installed-dev .venv/clients/installed
	LC_ALL=C.UTF-8 $(BIN)/python $(PYTEST)

test-postgres: .venv/installed-dev .venv/clients/installed
	LC_ALL=C.UTF-8 tests/with-postgres $(BIN)/python $(PYTEST) -m "not browser"

coverage: .venv/installed-dev .venv/clients/installed
	LC_ALL=C.UTF-8 $(BIN)/coverage run $(PYTEST)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

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

bench-nodes: .venv/installed-dev
	tests/with-postgres $(BIN)/python -m bench.nodes

goodput: .venv/installed-dev
	$(BIN)/python -m bench.goodput

clean:
	rm -rf .venv

# Versions that are locked stay, unless UPGRADE=--upgrade. The smaller sets take theirs from dev.txt, so that the
# tests run with what people run.
LOCK = .venv/uv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
  --no-emit-index-url --emit-build-options --custom-compile-command "make locks"
UPGRADE ?=

locks: .venv/uv/bin/uv
	$(LOCK) $(UPGRADE) requirements/dev.in -o requirements/dev.txt
	cp requirements/dev.txt requirements/postgres.txt
	$(LOCK) requirements/postgres.in -o requirements/postgres.txt
	cp requirements/dev.txt requirements/run.txt
	$(LOCK) requirements.txt -o requirements/run.txt
	$(LOCK) $(UPGRADE) requirements/clients.in -o requirements/clients.txt

# Install a lock, $(2), with the Python $(1). What pip says is kept, and shown unless it is only about the network.
define install
@echo "Installing $(2) (once) ..."
@$(1) -m pip install --quiet --disable-pip-version-check --require-hashes -r $(2) >$@.log 2>&1 || { \
  if grep -Eq 'Retry\(total=0|Max retries exceeded|TimeoutError' $@.log; then \
    echo "Cannot download packages: PyPI does not answer. Check the network; behind a proxy, set HTTPS_PROXY. More is in $@.log."; \
  else cat $@.log; fi; exit 1; }
@touch $@
endef

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "Python 3.11 or newer is needed; $(PYTHON) is $$($(PYTHON) --version 2>/dev/null || echo missing). Name another one: make run PYTHON=python3.13"; exit 1; }
	@$(PYTHON) -m venv .venv || { echo "On Debian and Ubuntu: apt-get install python3-venv"; rm -rf .venv; exit 1; }

.venv/installed: requirements/run.txt | .venv/bin/python
	$(call install,$(BIN)/python,requirements/run.txt)

.venv/installed-dev: requirements/dev.txt | .venv/bin/python
	$(call install,$(BIN)/python,requirements/dev.txt)
	@touch .venv/installed

# Clients that do not fit into one environment with ours; the tests run them from there.
.venv/clients/installed: requirements/clients.txt | .venv/bin/python
	@$(PYTHON) -m venv .venv/clients
	$(call install,.venv/clients/bin/python,requirements/clients.txt)

.venv/uv/bin/uv: | .venv/bin/python
	@$(PYTHON) -m venv .venv/uv
	.venv/uv/bin/python -m pip install --quiet --disable-pip-version-check uv==0.13.9
