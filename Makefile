# Everything runs from here; `make help` lists it. Needs Python 3.11, Node 20 and make. Nothing is written
# outside this folder and the data folder (RADLOOP_DATA_DIR, here .data).

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
FOREIGN := tests/foreign
SUBSCRIBERS := tests/subscriptions/foreign
NODE_READY := $(FOREIGN)/node_modules/.package-lock.json
OHIF := .cache/ohif/3.13.2
TRACKER := apps/tracker
TRACKER_READY := portal/static/tracker/tracker.js

export PIP_CACHE_DIR := $(CURDIR)/.cache/pip
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PYTHONUNBUFFERED := 1
export RUFF_CACHE_DIR := $(CURDIR)/.cache/ruff
export npm_config_cache := $(CURDIR)/.cache/npm
export MYPY_CACHE_DIR := $(CURDIR)/.cache/mypy

.DEFAULT_GOAL := help
.PHONY: help setup run demo test test-slow conformance lint format types lock system node tracker bench
.PHONY: ohif topics picture sheet clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(READY) ## create .venv and install the locked dependencies

$(READY): requirements.lock setup.cfg pyproject.toml
	@echo "==> Python environment in $(VENV)"
	@command -v $(PYTHON) >/dev/null || { echo "Radloop needs Python 3.11 ($(PYTHON) is not there)"; exit 1; }
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	@echo "==> locked dependencies (a MongoDB is among them, so this takes a minute the first time)"
	$(BIN)/pip install --quiet --progress-bar on --require-hashes --requirement requirements.lock
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

run: setup tracker ## start the server with a demonstration practice on http://127.0.0.1:8080
	@$(BIN)/radloop serve --demo

demo: setup ## start a server of its own, play one referral through it from outside, and stop
	@$(BIN)/radloop demo --serve

system: ## install the system programs that some tests drive (needs root; tests that lack them say so)
	@if command -v chromium >/dev/null; then echo "==> chromium is there"; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  echo "==> installing chromium"; apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium >/dev/null; \
	else echo "==> no chromium: the browser tests will be skipped; apt-get install chromium"; fi
	@if command -v Orthanc >/dev/null; then echo "==> orthanc is there"; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  echo "==> installing orthanc"; apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq orthanc orthanc-dicomweb >/dev/null; \
	else echo "==> no orthanc: its test will be skipped; apt-get install orthanc orthanc-dicomweb"; fi

node: ## install the FHIR client of Node that a test drives (a test that lacks it says so)
	@if command -v npm >/dev/null; then $(MAKE) --silent $(NODE_READY); \
	else echo "==> no npm: the test of fhir-kit-client will be skipped; install Node 20"; fi

$(NODE_READY): $(FOREIGN)/package-lock.json $(SUBSCRIBERS)/package-lock.json
	@echo "==> Node packages of $(FOREIGN) and $(SUBSCRIBERS)"
	npm ci --no-audit --no-fund --prefix $(FOREIGN)
	npm ci --no-audit --no-fund --ignore-scripts --prefix $(SUBSCRIBERS)
	@touch $@

ohif: ## fetch the prebuilt OHIF viewer that a test opens (50 MB; a test that lacks it says so)
	@if command -v npm >/dev/null; then $(MAKE) --silent $(OHIF)/.ready; \
	else echo "==> no npm: the test of OHIF will be skipped; install Node 20"; fi

# The version is named: npm would take an older one, as the newest asks for a Node that only its build needs.
$(OHIF)/.ready:
	@echo "==> OHIF viewer in $(OHIF)"
	@mkdir -p $(OHIF)
	npm pack --silent --pack-destination $(OHIF) @ohif/app@$(notdir $(OHIF))
	tar -xzf $(OHIF)/ohif-app-$(notdir $(OHIF)).tgz -C $(OHIF) --exclude=package/dist/ort
	@rm $(OHIF)/ohif-app-$(notdir $(OHIF)).tgz
	@touch $@

tracker: ## build our SMART app (a server without it says so)
	@if command -v npm >/dev/null; then $(MAKE) --silent $(TRACKER_READY); \
	else echo "==> no npm: our app for EHRs (/tracker) is not built; install Node 20"; fi

$(TRACKER)/node_modules/.package-lock.json: $(TRACKER)/package-lock.json
	@echo "==> Node packages of $(TRACKER)"
	npm ci --no-audit --no-fund --ignore-scripts --prefix $(TRACKER)
	@touch $@

$(TRACKER_READY): $(TRACKER)/node_modules/.package-lock.json $(wildcard $(TRACKER)/src/* $(TRACKER)/*.js $(TRACKER)/*.json)
	@echo "==> building $(TRACKER)"
	npm run --silent build --prefix $(TRACKER) -- --logLevel warn

test: setup system node tracker ohif ## run all tests but the long ones
	@mkdir -p .cache
	$(BIN)/pytest --numprocesses 2 --dist loadfile --basetemp .cache/tests -m "not slow"

test-slow: setup system node tracker ohif ## run the long proofs as well
	@mkdir -p .cache
	$(BIN)/pytest --basetemp .cache/tests

conformance: setup ## list clauses of the specification that no test proves
	@$(BIN)/python -m tests.conformance.requirements

lint: setup ## check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup ## check types
	$(BIN)/mypy

format: setup ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix-only --quiet .

lock: setup ## pin the newest versions of all dependencies in requirements.lock
	$(BIN)/pip install --quiet pip-tools
	$(BIN)/pip-compile --quiet --upgrade --no-header --no-emit-find-links --no-emit-index-url --allow-unsafe --generate-hashes \
	  --extra dev --strip-extras --output-file requirements.lock setup.cfg

bench: setup ## print what reads, writes and events cost on this machine
	$(BIN)/python -m bench

topics: setup ## write the pages of the topics (docs/topics)
	$(BIN)/python -m docs.topic_pages

picture: setup system tracker ## take the pictures of the portal that the README shows
	$(BIN)/python -m docs.picture

sheet: setup ## draw a contact sheet of a folder of DICOM files (FOLDER=...)
	$(BIN)/python -m docs.contact_sheet $(FOLDER)

clean: ## remove the environment and caches (not the data)
	rm -rf $(VENV) .cache .pytest_cache .hypothesis *.egg-info $(FOREIGN)/node_modules $(SUBSCRIBERS)/node_modules \
	  $(TRACKER)/node_modules portal/static/tracker
