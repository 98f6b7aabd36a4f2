# Needs make, sh and Python 3.10 or newer; everything is installed into .venv, once.
PYTHON ?= python3
VENV ?= .venv
JOBS ?= 2
PY = $(VENV)/bin/python
PIP = $(PY) -m pip --disable-pip-version-check install --quiet
# clean-fid asks for torchvision, of which we use nothing, and which must be built for the very torch that is there or neither imports.
BARE = --no-deps clean-fid==0.1.35
# What takes longer than the tests may: measured experiments, in the order in which they run.
REPRODUCE = bench/digits/run.py bench/tables/run.py bench/images/run.py

.PHONY: help quickstart test lab bench reproduce docs notebooks export clean

help: ## print this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)$$/\1|\2/p' Makefile | while IFS='|' read -r t d; do printf '  make %-11s %s\n' "$$t" "$$d"; done

quickstart: $(VENV)/.core ## install the small core and make private digits into runs/quickstart
	$(PY) -m pe_nb.quickstart $(ARGS)

test: $(VENV)/.dev ## run every check: export, lint, notebooks, then pytest
	$(PY) tools/check.py
	$(PY) -m ruff check pe_nb tests tools bench
	$(VENV)/bin/nbdev_test --n_workers $(JOBS) --timing
	$(PY) -m pytest $(ARGS)

lab: $(VENV)/.lab ## open JupyterLab in nbs/
	cd nbs && "$(abspath $(PY))" -m jupyterlab $(ARGS)

bench: $(VENV)/.dev ## run every benchmark (bench/*/run.py) but the two long ones, of tables and images
	@bad=; for f in $(filter-out bench/tables/run.py bench/images/run.py,$(wildcard bench/*/run.py)); do if [ -f "$$f" ]; then echo "== $$f"; $(PY) "$$f" || bad="$$bad $$f"; fi; done; \
	if [ -n "$$bad" ]; then echo "failed:$$bad" >&2; exit 1; fi

reproduce: $(VENV)/.dev ## run the long experiments again
	@for f in $(REPRODUCE); do echo "== $$f"; $(PY) "$$f" || exit 1; done

docs: $(VENV)/.docs ## build the pages into _docs/html (no network)
	$(PY) tools/docs.py

notebooks: $(VENV)/.dev ## run all notebooks again, in order, and keep their outputs
	@for nb in $$($(PY) tools/check.py list); do echo "$$nb"; $(PY) tools/nb.py run "$$nb" || exit 1; done
	$(PY) tools/readme.py

export: $(VENV)/.dev ## write pe_nb/ and README.md from the notebooks, and clean them
	$(VENV)/bin/nbdev_export
	$(VENV)/bin/nbdev_clean
	$(PY) tools/readme.py

clean: ## remove what builds and tests leave behind (keeps .venv and runs/)
	rm -rf build dist _docs _proc .pytest_cache .ruff_cache .hypothesis *.egg-info
	find pe_nb tests tools bench nbs -name __pycache__ -type d -prune -exec rm -rf {} +
	find nbs -name .ipynb_checkpoints -type d -prune -exec rm -rf {} +

# One stamp per set of requirements: a second call installs nothing. pip is the last thing that venv writes.
$(VENV)/bin/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	{ echo "pe_nb needs Python 3.10 or newer; choose one with: make PYTHON=/path/to/python3 ..." >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	echo "python3 could not make a virtual environment; on Debian and Ubuntu, install python3-venv first" >&2; exit 1; }
	$(PIP) 'pip>=23'

$(VENV)/.core: pyproject.toml | $(VENV)/bin/pip
	$(PIP) -e .
	@touch $@

$(VENV)/.dev: pyproject.toml | $(VENV)/bin/pip
	$(PIP) -e '.[dev]'
	$(PIP) $(BARE)
	@touch $(VENV)/.core $@

$(VENV)/.lab: pyproject.toml | $(VENV)/bin/pip
	$(PIP) -e '.[dev,notebooks]'
	$(PIP) $(BARE)
	@touch $(VENV)/.core $(VENV)/.dev $@

$(VENV)/.docs: pyproject.toml | $(VENV)/bin/pip
	$(PIP) -e '.[dev,docs]'
	$(PIP) $(BARE)
	@touch $(VENV)/.core $(VENV)/.dev $@
