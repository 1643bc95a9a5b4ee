# Everything runs in .venv with the pinned set of constraints.txt; nothing else needs to be installed.
PYTHON ?= python3
BIN := .venv/bin
DONE := .venv/.installed

.PHONY: install demo test soak

install: $(DONE)

$(DONE): setup.py constraints.txt
	$(PYTHON) -m venv .venv
	@echo 'Installing PyTorch and the host into .venv takes several minutes.'
	$(BIN)/pip install --disable-pip-version-check -c constraints.txt torch
	$(BIN)/pip install --disable-pip-version-check -c constraints.txt -e '.[onedl,vis,weights,tests]'
	touch $@

DEMO := work_dirs/demo
MODEL := configs/hmsa/efflite0_streets
WEIGHTS := $(DEMO)/epoch_8.pth

demo: $(DONE)
	$(BIN)/python tools/make_streets.py $(DEMO)/streets --train 400 --val 24 --extra 0
	$(BIN)/python tools/train.py $(MODEL).py --data-root $(DEMO)/streets --work-dir $(DEMO)
	$(BIN)/python tools/test.py --table $(MODEL)_single.py=$(WEIGHTS) $(MODEL)_averaged.py=$(WEIGHTS) $(MODEL).py=$(WEIGHTS) \
		--data-root $(DEMO)/streets --out $(DEMO)
	$(BIN)/python tools/predict.py $(MODEL).py $(WEIGHTS) $(DEMO)/streets/leftImg8bit/val --out $(DEMO)/predictions --explain
	@cat $(DEMO)/table.md
	@echo 'The table is $(DEMO)/table.md, more is in $(DEMO)/report.html. Pictures are in $(DEMO)/predictions.'

test: $(DONE)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy mmseg_ext
	$(BIN)/pytest -n 3 --dist worksteal

# For an hour: trains a small model of each paper, measures growth and kills; prints a table.
soak: $(DONE)
	$(BIN)/python -m tests.reliability.soak --out work_dirs/soak
