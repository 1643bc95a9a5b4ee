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
MODEL := configs/hmsa/hrnet18s_ocr_streets.py --data-root $(DEMO)/streets --work-dir $(DEMO)

demo: $(DONE)
	$(BIN)/python tools/make_streets.py $(DEMO)/streets --train 200 --val 24 --extra 0
	$(BIN)/python tools/train.py $(MODEL) --crop-size 128 256 --max-epochs 6 --cfg-options train_dataloader.batch_size=4 auto_scale_lr.base_batch_size=4
	$(BIN)/python tools/test.py $(MODEL) $(DEMO)/epoch_6.pth
	$(BIN)/python tools/predict.py configs/hmsa/hrnet18s_ocr_streets.py $(DEMO)/epoch_6.pth \
		$(DEMO)/streets/leftImg8bit/val --out $(DEMO)/predictions --explain
	@cat $(DEMO)/table.md
	@echo 'The table is $(DEMO)/table.md, pictures are in $(DEMO)/pictures and $(DEMO)/predictions.'

test: $(DONE)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy mmseg_ext
	$(BIN)/pytest -n 2

# For an hour: trains a small model of each paper, measures growth and kills; prints a table.
soak: $(DONE)
	$(BIN)/python -m tests.reliability.soak --out work_dirs/soak
