# make demo   install, then invert, reconstruct and edit a picture
# make serve  install, then serve the page at http://127.0.0.1:7860; SERVE_ARGS are further options
# make test   install what tests need, then run them          make test-all  the slow ones too
# make lint   ruff, mypy and spelling                         make bench     the tables under docs/benchmarks
# make docs   the documentation site, in site/                make stale     the age and the time of each table
# make release-check       build the wheel and the source archive, install the wheel in a bare environment and use it
# make release-check-bare  each extra from the package index in a bare environment too
# PIP_ARGS is passed to pip, for an index of your own.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP_ARGS ?=
SERVE_ARGS ?=

.PHONY: demo serve test test-all lint docs bench stale images release-check release-check-bare clean

demo: $(VENV)/.installed
	$(BIN)/iterinv edit examples/red-sphere.png \
	  --prompt "a large red shiny sphere on a wooden floor in front of a beige wall" \
	  --to "a large blue shiny sphere on a wooden floor in front of a beige wall" --keep-inversion --out out/

serve: $(VENV)/.installed-web
	$(BIN)/iterinv serve $(SERVE_ARGS)

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -q -n auto

test-all: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -q -n auto -m ""

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell

docs: $(VENV)/.installed-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: $(VENV)/.installed-dev
	$(BIN)/python benchmarks/stale.py
	for name in pictures reconstruction page samples enlarging table1 exact_and_editable editors own_size aspect demo rules overhead reader alignment \
	  sampling scenes methods metrics figures evaluate; do \
	  OMP_WAIT_POLICY=PASSIVE $(BIN)/python benchmarks/$$name.py || exit 1; done

stale: $(VENV)/.installed-dev
	$(BIN)/python benchmarks/stale.py

images: $(VENV)/.installed-dev
	ITERINV_SCREENSHOTS=docs/images $(BIN)/python -m pytest -q -m "" tests/web/test_browser.py

release-check: $(VENV)/.installed-dev
	ITERINV_FROM_INDEX=1 $(BIN)/python -m pytest -q -m "" tests/test_release.py -k "not what_an_extra"
	$(BIN)/python -m pytest -q -m "" tests/test_release.py -k what_an_extra

release-check-bare: $(VENV)/.installed-dev
	ITERINV_FROM_INDEX=1 $(BIN)/python -m pytest -q -m "" tests/test_release.py

clean:
	rm -rf $(VENV) out site

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -c constraints.txt -e .
	touch $@

$(VENV)/.installed-web: $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -c constraints.txt -e '.[web]'
	touch $@

$(VENV)/.installed-dev: $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -c constraints.txt -e '.[dev]'
	touch $@
