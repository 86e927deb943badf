# The README's two commands are `make demo` and `make test`; each sets itself up.
PYTHON ?= python3.11
BIN := .venv/bin

.PHONY: setup demo test lint type bench bench-gpu test-hostile test-faults soak

setup: .venv/.installed

.venv/.installed: pyproject.toml constraints.txt
	@echo "Installing into .venv (about 7 GB and some minutes, once; the log is .venv/install.log) ..."
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[dev]' > .venv/install.log 2>&1 \
		|| { tail -n 20 .venv/install.log; exit 1; }
	@touch $@

demo: setup
	@$(BIN)/python -m jobs.demo

test: lint type
	$(BIN)/python -m pytest

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

type: setup
	$(BIN)/mypy

bench: setup
	$(BIN)/python benchmarks/annotations.py --small
	$(BIN)/python benchmarks/masks.py --small
	$(BIN)/python benchmarks/loader.py --small --scale both
	$(BIN)/python benchmarks/predict.py --small
	$(BIN)/python benchmarks/timeline.py --small
	$(BIN)/python benchmarks/pipeline.py --small
	$(BIN)/python benchmarks/storage.py --small
	$(BIN)/python benchmarks/scale.py --small
	$(BIN)/python benchmarks/plan.py --small
	$(BIN)/python benchmarks/train.py --small
	$(BIN)/python benchmarks/train_quality.py --small
	$(BIN)/python benchmarks/validate.py --small
	$(BIN)/python benchmarks/evaluate.py --small
	$(BIN)/python benchmarks/export.py --small
	$(BIN)/python benchmarks/report.py --small

# Needs a GPU; torch's wheel and pycocotools are enough.
bench-gpu: setup
	$(BIN)/python benchmarks/masks.py --output benchmarks/results/masks_gpu.json
	$(BIN)/python benchmarks/predict.py --images 64 --batch-sizes 1 8 16 --output benchmarks/results/predict_gpu.json
	$(BIN)/python benchmarks/train.py --loader-workers 8 --steps 10 --output benchmarks/results/train_gpu.json

# A hundred thousand hostile documents, and as many segmentations: about half an hour.
test-hostile: setup
	HOSTILE_DOCUMENTS=100000 $(BIN)/python -m pytest tests/property/test_hostile_documents.py

# The promises of docs/RELIABILITY.md in a small form, 20 minutes on 2 cores; then its table is written anew.
# Two at a time: they mostly wait.
FAULTS_A := $(wildcard tests/faults/test_[a-n]*.py)
FAULTS_B := $(wildcard tests/faults/test_[o-z]*.py)

test-faults: setup
	$(BIN)/python -m pytest $(FAULTS_A) & first=$$!; $(BIN)/python -m pytest $(FAULTS_B); second=$$?; \
		wait $$first && exit $$second
	$(BIN)/python -m tests.faults.figures

# The same in a long form: hours.
soak: setup
	MASKRCNN_SOAK=1 $(BIN)/python -m pytest tests/faults
	$(BIN)/python -m tests.faults.figures
