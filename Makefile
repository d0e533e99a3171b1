# The commands of the README. Python 3.11 to 3.13 with venv and make are all they need; everything else is fetched into .venv.
PYTHON ?= python3
BIN := .venv/bin
PAPERMILL := $(BIN)/papermill --no-progress-bar --log-output
OUT := runs/notebooks
ROWS := 6600
# what gained most so far: docs/longer_runs.md
KTO := -p max_rows 440 -p max_length 768 -p learning_rate 2e-5 -p batch_size 8
# two test files at a time, a core for each
TWO := -n 2 --dist loadfile

.PHONY: setup run pipeline quality test lint bench peer fuzz data validate verify-data repository clean

setup: .venv/installed

.venv/installed: requirements-local.txt requirements-cuda.txt requirements-unsloth.txt requirements-dev.txt toolset_nb/install.py
	@echo "Setting up .venv: about 600 MB of packages without a GPU (3 GB with CUDA builds), once."
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 to 3.13 is needed, found " + sys.version.split()[0] if not (3, 11) <= sys.version_info[:2] <= (3, 13) else 0)'
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1" setuptools==84.2.1
	@$(BIN)/python toolset_nb/install.py local --dev
	@touch $@

run: setup  ## SFT of the embedded model, base and tuned model side by side, export as GGUF
	@mkdir -p $(OUT)
	@$(PAPERMILL) notebooks/sft.ipynb $(OUT)/sft.ipynb $(ARGS)
	@$(PAPERMILL) notebooks/evaluate.ipynb $(OUT)/evaluate.ipynb -p targets base,latest
	@$(PAPERMILL) notebooks/export.ipynb $(OUT)/export.ipynb -p run latest:sft

pipeline: setup  ## SFT, KTO, evaluation of all, export of the last; PIPELINE=name goes on with one
	$(BIN)/python -m toolset_nb pipeline --run-name $(or $(PIPELINE),pipeline) $(ARGS)

quality: setup  ## SFT on every row, then KTO, going on where it was stopped; base, SFT and KTO on three prompt sets; hours on two cores
	@mkdir -p $(OUT)
	@grep -qs '"status": "complete"' runs/quality/run.json runs/quality-[0-9]*/run.json || \
		$(PAPERMILL) notebooks/sft.ipynb $(OUT)/quality.ipynb -p run_name quality -p resume auto -p max_rows 1000000 $(ARGS)
	@grep -qs '"status": "complete"' runs/quality-kto*/run.json || \
		$(PAPERMILL) notebooks/kto.ipynb $(OUT)/quality-kto.ipynb -p run_name quality-kto -p sft_run latest:sft -p resume auto $(KTO)
	@for set in full_coverage tasks behavior; do $(PAPERMILL) notebooks/evaluate.ipynb $(OUT)/quality-$$set.ipynb \
		-p targets base,latest:sft,latest:kto -p prompt_set $$set || exit 1; done

test: setup lint
	$(BIN)/python -m pytest tests -m "not notebooks" -x $(TWO)
	$(BIN)/python -m pytest tests -m notebooks -x --durations 8 $(TWO)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/nbstripout --verify notebooks/*.ipynb

data: setup  ## make the committed data again, byte for byte
	$(BIN)/python -m toolset_nb generate tasks -o datasets/prompts/tasks.json
	$(BIN)/python -m toolset_nb generate behavior --seed 1 -o datasets/prompts/behavior.json
	$(BIN)/python -m toolset_nb generate baseline -o datasets/prompts/baseline.json
	$(BIN)/python -m toolset_nb generate tool_combos -o datasets/prompts/tool_combos.json
	$(BIN)/python -m toolset_nb generate hashes -o datasets/prompts/hashes.jsonl
	$(BIN)/python -m toolset_nb generate sft --rows $(ROWS) --seed 1 -o datasets/sft.jsonl
	$(BIN)/python -m toolset_nb generate kto --rows $(ROWS) --seed 2 -o datasets/kto.jsonl

validate: setup
	$(BIN)/python -m toolset_nb validate datasets/*.jsonl

verify-data: validate  ## execute every positive row again
	$(BIN)/python -m toolset_nb verify datasets/*.jsonl

bench: setup
	$(BIN)/python benchmarks/validate.py
	$(BIN)/python benchmarks/vault.py
	$(BIN)/python benchmarks/evaluation.py
	$(BIN)/python benchmarks/training.py

peer: setup  ## our verdicts beside those of BFCL's checkers and inspect_ai, which get an environment of their own
	@test -x .peer/bin/python || $(PYTHON) -m venv .peer
	@.peer/bin/python -m pip install --quiet --disable-pip-version-check inspect_ai==0.3.285
	@test -d .peer/bfcl || $(BIN)/python -m pip download --quiet --no-deps --dest .peer bfcl-eval==2026.3.23
	@test -d .peer/bfcl || $(BIN)/python -m zipfile -e .peer/bfcl_eval-2026.3.23-py3-none-any.whl .peer/bfcl
	$(BIN)/python benchmarks/peer.py .peer/bin/python .peer/bfcl

fuzz: setup  ## random and hostile calls on a vault; FUZZ_EXAMPLES is in runs of 50 calls
	FUZZ_EXAMPLES=$${FUZZ_EXAMPLES:-500} FUZZ_PATHS=$${FUZZ_PATHS:-100000} $(BIN)/python -m pytest tests/vault/test_fuzz.py

repository: setup  ## make repository URL=https://github.com/you/toolset_nb
	$(BIN)/python -m toolset_nb repository "$(URL)"

clean:
	rm -rf .venv build *.egg-info .pytest_cache .ruff_cache unsloth_compiled_cache
