# make demo   the app, at http://127.0.0.1:7860          make test   all tests
# make lint   format, style and types, as CI checks them
# make bench  speed, into benchmarks/results.md (about ten minutes on an idle machine)
# Each sets up .venv first, with the versions in the lock; nothing is needed beyond make and Python 3.11 or newer.
#
# make notebooks    every notebook of docs/notebooks, in a kernel of its own
# make wheel        dist/switch_explorer-….whl, for pip install anywhere
# make lock         requirements.txt anew, from the ranges in pyproject.toml
# make test-latest  all tests with the newest versions that the ranges allow
# make test-oldest  all tests with the oldest

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV := .venv-uv/bin/uv
INSTALL := -m pip install --quiet --disable-pip-version-check
ARGS ?=
# Files of tests at work at once, each on a core of its own. 0: one after the other, in this process.
WORKERS ?= 2
PYTEST := -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

.PHONY: demo test bench lint notebooks wheel lock install-latest install-oldest test-latest test-oldest clean

demo: $(VENV)/.installed
	$(BIN)/python app.py $(ARGS)

test: $(VENV)/.installed-tests
	$(BIN)/ruff check .
	$(BIN)/python tests/support/install_browser.py
	$(BIN)/python $(PYTEST) $(ARGS)

bench: $(VENV)/.installed
	$(BIN)/python -m benchmarks

lint: $(VENV)/.installed-tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	git grep -Ilz '' -- ':!assets' | xargs -0 $(BIN)/python tests/support/file_ends.py

notebooks: $(VENV)/.installed-tests
	$(BIN)/python tests/support/notebooks.py

wheel: $(VENV)/.installed
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .
	rm -rf build switch_explorer.egg-info

# A virtual environment with torch in it, of which pip takes the newest build in its range that suits the machine.
define make_venv
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed: make $(MAKECMDGOALS) PYTHON=/path/to/python3.12"; exit 1; }
	@test -x $(1)/bin/python || $(PYTHON) -m venv $(1) || \
		{ echo "Python could not make a virtual environment; on Debian and Ubuntu: apt-get install python3-venv"; exit 1; }
	@echo "Installing what is needed into $(1) (once; a few minutes) …"
	$(1)/bin/python $(INSTALL) '$(shell grep '^torch' requirements.txt)'
endef

$(VENV)/.installed: requirements.txt
	$(call make_venv,$(VENV))
	$(BIN)/python $(INSTALL) -r requirements.txt
	@touch $@

$(VENV)/.installed-tests: $(VENV)/.installed tests/requirements.txt
	$(BIN)/python $(INSTALL) -r tests/requirements.txt
	@touch $@

# uv resolves versions here and installs nothing.
$(UV):
	$(PYTHON) -m venv .venv-uv
	.venv-uv/bin/python $(INSTALL) "uv>=0.13,<1"

lock: $(UV)
	.venv-uv/bin/python tests/support/versions.py lock

install-latest install-oldest: install-%: $(UV)
	$(call make_venv,.venv-$*)
	.venv-$*/bin/python tests/support/versions.py $* > .venv-$*/requirements.txt
	.venv-$*/bin/python $(INSTALL) -r .venv-$*/requirements.txt

test-latest test-oldest: test-%: install-%
	.venv-$*/bin/python tests/support/install_browser.py
	.venv-$*/bin/python $(PYTEST) $(ARGS)

clean:
	rm -rf $(VENV) .venv-latest .venv-oldest .venv-uv
