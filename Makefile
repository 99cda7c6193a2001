PYTHON ?= python3
BIN := .venv/bin
WORKERS ?= 2

# What computes: kernels, norms, losses, and parity with transformers.
NUMERIC := tests/kernels tests/test_chunked.py tests/test_linear_cross_entropy.py tests/test_prepacking.py \
	tests/catalogue/test_norms.py tests/parity/test_logits.py tests/parity/test_gradients.py tests/parity/test_precision.py
NUMERIC_TESTS = $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal -k "not compile" $(NUMERIC)

# For the loop of editing: of each package what is quick, without processes, compilers and comparisons with transformers.
FAST := tests/test_specs.py tests/test_registry.py tests/test_schema.py tests/test_patches.py tests/test_attention.py \
	tests/test_packing.py tests/test_predictions.py tests/kernels/test_agreement.py tests/kernels/test_masks.py \
	tests/kernels/test_choice.py tests/kernels/test_biases.py tests/catalogue/test_norms.py tests/catalogue/test_heads.py \
	tests/catalogue/test_feed_forward.py tests/catalogue/test_positions.py tests/catalogue/test_residuals.py \
	tests/merged/test_reference.py tests/merged/test_embeddings.py tests/checkpoints_format/test_extract.py \
	tests/checkpoints_format/test_wrapped.py tests/checkpoints_format/test_own_tables.py tests/initialisation/test_plan.py \
	tests/broken/test_specs.py tests/broken/test_documents.py tests/broken/test_arguments.py tests/broken/test_targets.py \
	tests/command_line/test_errors.py tests/studies/test_broken_studies.py tests/studies/test_summary.py \
	tests/studies/test_scheduling.py

.PHONY: demo test test-fast test-portable lint format schema bench install dist docs
install: $(BIN)/.installed

$(BIN)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

DEMO := gemma-large gemma-small gemma3 gemma3-wide gemma3-pictures modernbert paired silent exported
demo: install ## make these folders in demo/ anew: small checkpoints, and an unequal pair that is converted, checked and generates
	rm -rf $(DEMO:%=demo/%)
	$(BIN)/python examples/checkpoints.py
	$(BIN)/python examples/convert.py

test: install ## run every test
	$(BIN)/python -m pytest -rs --numprocesses $(WORKERS) --dist worksteal

test-fast: install ## run a choice of quick tests of each package, a minute or so
	$(BIN)/python -m pytest -rs --numprocesses $(WORKERS) --dist worksteal -k "not compile" $(FAST)

test-portable: install ## run the tests of numbers again as on processors without AVX, and with AVX2 alone
	ATEN_CPU_CAPABILITY=default $(NUMERIC_TESTS)
	ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 $(NUMERIC_TESTS)

lint: install ## formatting, lint rules, types, direction of imports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: install ## rewrite the sources as lint wants them
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

schema: install ## rewrite the committed JSON Schema, the presets' expanded forms, docs/blocks.md and docs/config-fields.md (four minutes)
	$(BIN)/python -m tests.golden

dist: install ## build the sdist and the wheel into dist/
	rm -rf dist
	$(BIN)/python -m tests.release.distributions dist

docs: install ## build the documentation's site in docs/_build/html; a warning or a broken link is an error
	$(BIN)/python -m sphinx --quiet --nitpicky --fail-on-warning --keep-going -c docs -d docs/_build/doctrees . docs/_build/html

bench: install ## measure everything against transformers (about two hours); BENCH="--only forward" or "--device cuda"
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[dev,bench]"
	$(BIN)/python -m benchmarks.all $(BENCH)
