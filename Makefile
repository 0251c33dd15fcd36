# `make demo` and `make test` need Python >= 3.11 and make; everything else goes into $(VENV).
PYTHON ?= python3
VENV   ?= .venv
# An unpinned torch may bring gigabytes of CUDA along, so it is installed first and pinned.
# For a GPU machine: make demo TORCH="torch"
TORCH  ?= torch==2.13.0
TRANSFORMER_LENS ?= transformer-lens==3.9.0
# Video processors need torchvision. It is installed without its dependency on a torch of its own;
# beside a CPU torch its compiled operators do not load, and mmlens._torchvision stands in.
TORCHVISION ?= torchvision==0.28.0
# The bridge is also tested on the newest transformer-lens, which has no HookedTransformer.
NEWEST_LENS ?= transformer-lens==4.3.0
RUN    ?= runs/demo

EXTRAS ?= hooked-transformer,dev

PY    := $(VENV)/bin/python
# Two workers of one thread each. Bytecode is kept, for the tests start many processes.
PYTEST := PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(PY) -m pytest -q -n 2
STAMP := $(VENV)/.installed

FAMILIES := tests/adapters/test_families.py
FAST := tests/test_entropy.py tests/test_neurons.py tests/data/media tests/data/test_samples.py \
    tests/datasets tests/metrics tests/plots tests/report tests/run tests/selection tests/statistics \
    tests/storage tests/tokens tests/hooks/test_hooks.py tests/streaming/test_batching.py \
    "$(FAMILIES)::test_hooked_transformer_equals_hugging_face[llava_next-mistral]" \
    "$(FAMILIES)::test_bridge_equals_hugging_face_exactly[llava_next-mistral]" \
    tests/experiments/test_mmneuron.py::test_the_run_folder_is_complete
# What depends on the version of transformer-lens.
BRIDGE := $(FAMILIES) tests/backbone/test_bridge.py tests/backbone/test_bridge_model.py \
    tests/backbone/test_build.py tests/importance/test_collect.py tests/model/test_self_check.py

.PHONY: demo test test-fast test-bridge check install benchmark clean
demo: $(STAMP)
	$(PY) -m experiments.mmneuron --out $(RUN) --questions 160 --questions-others 40

test: check
	$(PYTEST)

# What needs no model, one tiny model on each backbone, and one run: a minute.
test-fast: $(STAMP)
	$(PYTEST) $(FAST)

check: $(STAMP)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(VENV)/bin/lint-imports --no-logo
	$(MAKE) -j2 --output-sync pyright pyright-strict

.PHONY: pyright pyright-strict
pyright:
	$(PY) -m pyright --pythonpath $(PY)
# Entropy, statistics, selection, figures, pages: what is pure is typed strictly.
pyright-strict:
	$(PY) -m pyright --project pyright-strict.json --pythonpath $(PY)

benchmark: $(STAMP)
	$(PY) -m benchmarks.overhead

install: $(STAMP)
$(STAMP): pyproject.toml constraints.txt Makefile
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) -m pip install -q --disable-pip-version-check "$(TORCH)"
	$(PY) -m pip install -q --disable-pip-version-check -c constraints.txt "$(TRANSFORMER_LENS)" -e ".[$(EXTRAS)]"
	$(PY) -m pip install -q --disable-pip-version-check --no-deps "$(TORCHVISION)"
	touch $@

# The bridge alone, on transformer-lens 4.
test-bridge:
	$(MAKE) VENV=$(VENV)-4 TRANSFORMER_LENS="$(NEWEST_LENS)" EXTRAS=dev $(VENV)-4/.installed
	$(MAKE) VENV=$(VENV)-4 tested TESTS="$(BRIDGE)"

.PHONY: tested
tested:
	$(PYTEST) $(TESTS)

clean:
	rm -rf $(VENV) $(VENV)-4 build *.egg-info .pytest_cache .ruff_cache .hypothesis
