# Every target sets up what it needs: a virtual environment in .venv, from python3, python3-venv and the package registry.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: run demo test lint types imports unit e2e bench dashboards pictures fix install uninstall install-slurm deb clean
.DEFAULT_GOAL := help

help: ## show this list
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

run: $(READY) ## start the daemon with its built-in defaults
	$(BIN)/wattledger serve

demo: $(READY) ## the same over eight simulated H100s
	$(BIN)/wattledger serve --simulate configs/scenarios/eight-h100.toml --ledger $(VENV)/demo.sqlite

test: lint types imports unit ## all checks but the end-to-end suite

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(READY)
	$(BIN)/mypy

imports: $(READY)
	$(BIN)/lint-imports

unit: $(READY)
	$(BIN)/pytest -n 2

e2e: $(READY) ## end to end; .ci/run installs the Debian packages it needs
	$(BIN)/pytest tests/e2e

bench: $(READY) ## the figures of the README, measured again
	$(BIN)/python -m tests.bench

dashboards: $(READY) ## deploy/grafana/dashboards, made of their code again
	$(BIN)/python deploy/grafana/build.py

# PROMETHEUS=http://localhost:9090 draws what that one knows into build/pictures, MINUTES=60 up to now.
pictures: $(READY) ## the dashboards' pictures, drawn again; needs prometheus, chromium, nodejs and npm
	cd tests && ../$(BIN)/python -m e2e.grafana_pictures \
	    $(if $(PROMETHEUS),--prometheus $(PROMETHEUS) --minutes $(or $(MINUTES),60) --out ../build/pictures)

fix: $(READY) ## format, and mend what the linter can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Without the .venv of the checkout: only python3, python3-venv and the package registry.
# Before the export, which defines what is not: empty.
EXTRAS ?= otlp
export DESTDIR PREFIX SYSCONFDIR EXTRAS OUT
SYSTEM_PYTHON ?= /usr/bin/python3

install: ## into PREFIX (/usr/local) below DESTDIR: program, units, settings
	PYTHON=$(SYSTEM_PYTHON) sh deploy/install.sh

uninstall: ## what `install` put there, save settings and books
	sh deploy/uninstall.sh

install-slurm: ## Slurm's hooks below DESTDIR; prints what slurm.conf lacks (deploy/slurm/README.md)
	sh deploy/slurm/install.sh

deb: ## dist/wattledger_VERSION_ARCHITECTURE.deb, for this machine's release
	PYTHON=$(SYSTEM_PYTHON) sh deploy/debian/build.sh

clean:
	rm -rf $(VENV) build dist
