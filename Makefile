# Everything is set up in .venv on first use. PYTHON chooses the interpreter.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo serve test long fuzz lint proto bench clean help

help:  ## say what there is
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /	/'

$(VENV)/ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[demo,dev,fuzz]'
	@touch $@

demo: $(VENV)/ready  ## a real agent task, decided call by call
	@$(BIN)/python -m pdp.cli.demo

serve: $(VENV)/ready  ## run the server on its embedded defaults
	$(BIN)/pdp serve

test: $(VENV)/ready  ## all tests but the long proofs
	$(BIN)/python -m pytest

long: $(VENV)/ready  ## the long proofs
	$(BIN)/python -m pytest -m long --timeout 0

# SECONDS=600 TARGETS=bundle: for how long, and what.
SECONDS ?= 60
fuzz: $(VENV)/ready  ## any bytes at every reader, for a minute
	$(BIN)/python -m tests.fuzz --seconds $(SECONDS) $(TARGETS)

lint: $(VENV)/ready  ## style, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

proto: $(VENV)/ready  ## generate pdp/v1 from proto/
	$(BIN)/python -m grpc_tools.protoc -Iproto --python_out=. --pyi_out=. --grpc_python_out=. proto/pdp/v1/*.proto

bench: $(VENV)/ready  ## measure, beside the control
	$(BIN)/pdp bench

clean:  ## remove what was set up, and nothing else
	rm -rf $(VENV) build *.egg-info
