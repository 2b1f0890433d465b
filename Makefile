# Both commands work from a bare clone with Python 3.11: `make demo` and `make test`.
PYTHON ?= python3.11
VENV := .venv
RUN := $(VENV)/bin/python
READY := $(VENV)/.ready
# One torch thread a test process: two processes with two threads each only wait for each other.
QUIET := HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false

.PHONY: demo test check install bench study clean

demo: $(READY)
	$(QUIET) $(RUN) -m synthetic kernels --out runs/demo/kernels
	$(QUIET) $(RUN) -m synthetic bias --problem quadratic,sextic --samples 300000 --controlled-samples 30000 --out runs/demo/bias
	$(QUIET) $(RUN) -m synthetic converge --evaluations 3000 --rates 0.015625,0.03125,0.0625,0.125 --out runs/demo/converge
	$(QUIET) $(RUN) -m llm train --task spam --method mezo --steps 500 --lr 3e-4 --test 330 --no-save --out runs/demo/spam-mezo
	$(QUIET) $(RUN) -m llm train --task spam --method kerzoo --steps 500 --lr 1e-4 --test 330 --no-save --out runs/demo/spam-kerzoo
	$(QUIET) $(RUN) -m analysis report runs/demo results/spam/seeds --out runs/demo/report.html

test: check
	OMP_NUM_THREADS=1 $(QUIET) $(RUN) -m pytest -n 2

check: $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

bench: $(READY)
	$(RUN) -m synthetic bench

# The rows under results/: every method at equal forward passes, tuned alike on dev, 5 seeds. About an hour on 2 cores.
study: $(READY)
	$(QUIET) $(RUN) -m llm study --task spam --out runs/study/spam
	$(QUIET) $(RUN) -m llm study --task sentences --out runs/study/sentences

install: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --constraint constraints.txt --editable ".[suites,llm,gguf,dev]"
	touch $(READY)

clean:
	rm -rf runs build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
