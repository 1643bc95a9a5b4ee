# Everything runs in .venv with the pinned set of constraints.txt; nothing else needs to be installed.
PYTHON ?= python3
BIN := .venv/bin
DONE := .venv/.installed

.PHONY: install demo test

install: $(DONE)

$(DONE): setup.py constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt torch
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e '.[onedl,vis,tests]'
	touch $@

test: $(DONE)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy mmseg_ext
	$(BIN)/pytest -n 2
