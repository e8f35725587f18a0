# make demo   the app, at http://127.0.0.1:7860          make test   all tests
# make bench  speed, into benchmarks/results.md (about ten minutes on an idle machine)
# Each sets up .venv first; nothing is needed beyond make and Python 3.11 or newer.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=

.PHONY: demo test bench lint clean

demo: $(VENV)/.installed
	$(BIN)/python app.py $(ARGS)

test: $(VENV)/.installed-tests
	$(BIN)/ruff check .
	$(BIN)/python tests/install_browser.py
	$(BIN)/python -m pytest $(ARGS)

bench: $(VENV)/.installed
	$(BIN)/python -m benchmarks

lint: $(VENV)/.installed-tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

$(VENV)/.installed: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed: make $(MAKECMDGOALS) PYTHON=/path/to/python3.12"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
		{ echo "Python could not make a virtual environment; on Debian and Ubuntu: apt-get install python3-venv"; exit 1; }
	@echo "Installing what the app needs into $(VENV) (once; a few minutes) …"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

$(VENV)/.installed-tests: $(VENV)/.installed tests/requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r tests/requirements.txt
	@touch $@

clean:
	rm -rf $(VENV)
