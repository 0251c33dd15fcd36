# `make demo` and `make test` need Python >= 3.11 and make; everything else goes into $(VENV).
PYTHON ?= python3
VENV   ?= .venv
# An unpinned torch may bring gigabytes of CUDA along, so it is installed first and pinned.
# For a GPU machine: make demo TORCH="torch"
TORCH  ?= torch==2.13.0
TRANSFORMER_LENS ?= transformer-lens==3.9.0
RUN    ?= runs/demo

PY    := $(VENV)/bin/python
STAMP := $(VENV)/.installed

.PHONY: demo test check install benchmark clean
demo: $(STAMP)
	$(PY) -m experiments.mmneuron --out $(RUN) --modules language vision projector \
	    --questions 160 --questions-others 40

test: check
	$(PY) -m pytest -q

check: $(STAMP)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m pyright --pythonpath $(PY)

benchmark: $(STAMP)
	$(PY) -m benchmarks.overhead

install: $(STAMP)
$(STAMP): pyproject.toml constraints.txt Makefile
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) -m pip install -q --disable-pip-version-check "$(TORCH)"
	$(PY) -m pip install -q --disable-pip-version-check -c constraints.txt "$(TRANSFORMER_LENS)" -e ".[hooked-transformer,dev]"
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .ruff_cache .hypothesis
