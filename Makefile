# Everything runs in .venv, made once from pyproject.toml and constraints.txt.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.ready
COMPILED := $(CURDIR)/build/compiled
JS := tests/e2e/js
RANDOM_HEX = $$(head -c 24 /dev/urandom | od -An -v -tx1 | tr -d ' \n')
# Where Python is told to write no bytecode, each worker and each program that a test starts would compile all modules again.
export PYTHONDONTWRITEBYTECODE =
# Three for two processors: a third of the time a test waits. What stands together stays together, with the fixtures that it shares.
SPREAD := -n 3 --dist worksteal
# Of modules that are not compiled, or of the sources themselves.
UNCOMPILED := contract/test_description.py dashboard deploy grafana simulator store test_cli.py test_config.py test_db.py test_keyconfig.py test_shape.py top
NPM := npm install --no-package-lock --ignore-scripts --no-audit --no-fund --loglevel=error --fetch-retries=1

.PHONY: setup demo screenshots run check fix js test test-compiled compiled bench fuzz clean

setup: $(STAMP)
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Corral needs Python 3.11 or newer; found %d.%d. Name another with: make PYTHON=python3.12" % sys.version_info[:2])'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $(STAMP)

demo: setup   ## three simulated hosts, the gateway and the app, until Ctrl-C
	$(BIN)/corral demo

screenshots: setup ## pictures of the app's pages, in build/screenshots; needs chromium
	$(BIN)/python -m tests.dashboard.screenshots

run: setup    ## the gateway as corral.toml or CORRAL_* say
	$(BIN)/corral serve

.env: | .env.example ## for docker compose: the example, with passwords of its own
	umask 077 && sed -e "s/^POSTGRES_PASSWORD=$$/&$(RANDOM_HEX)/" -e "s/^GRAFANA_PASSWORD=$$/&$(RANDOM_HEX)/" .env.example > $@

check: setup  ## format, lint, types, import contracts, generated files
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/python docs/build.py --check
	$(BIN)/python -m grafana.build --check

fix: setup    ## let the tools mend what they can, and write the generated pages
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/python docs/build.py
	$(BIN)/python -m grafana.build

js:           ## ollama-js for its tests; where there is no npm, or it reaches no registry, they are skipped
	@cmp -s $(JS)/package.json $(JS)/node_modules/.ready || { command -v npm >/dev/null && cd $(JS) && $(NPM) && cp package.json node_modules/.ready; } \
	|| echo "no ollama-js: its tests will be skipped"

test: setup js ## the whole suite
	$(BIN)/pytest $(SPREAD)

test-compiled: $(COMPILED)/.ready js ## the suite again, against the compiled build; without what has nothing to do with that
	PYTHONPATH=$(COMPILED) $(BIN)/pytest $(SPREAD) --import-mode=append $(addprefix --ignore=tests/,$(UNCOMPILED))

compiled: $(COMPILED)/.ready ## the request's path compiled to C by mypyc (needs a C compiler); in build/, beside the sources
$(COMPILED)/.ready: $(STAMP) pyproject.toml $(shell find gateway simulator -name '*.py')
	rm -rf build
	mkdir -p build/source/.git  # where mypy's search for a configuration ends: it must do without ours, as it does elsewhere
	cp -r pyproject.toml README.md LICENSE gateway simulator build/source
	HATCH_BUILD_HOOKS_ENABLE=1 PIP_CONSTRAINT=$(CURDIR)/constraints.txt $(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps -w build build/source
	$(BIN)/python -m zipfile -e build/*.whl $(COMPILED)
	PYTHONPATH=$(COMPILED) $(BIN)/python -P -c 'import gateway.relay.relay as relay; assert relay.__file__.endswith(".so"), relay.__file__'
	touch $@

bench: $(COMPILED)/.ready ## side by side with nginx and others; needs gcc and nginx
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	$(BIN)/python -m bench

SECONDS ?= 20
fuzz: setup   ## SECONDS (20) of coverage-guided fuzzing in all: make fuzz SECONDS=300; needs atheris
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[fuzz]'
	$(BIN)/python -m tests.fuzz $(SECONDS)

clean:
	rm -rf .venv build $(JS)/node_modules .mypy_cache .ruff_cache .pytest_cache .hypothesis bench/build
