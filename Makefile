# A thin face: each target is one command, and `make` says what it runs.
# Needs Python 3.13; everything else comes into .venv.

PYTHON ?= python3.13
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
WEATHER ?= clear
BENCH := .local/bench-packages

# What neither deploys nor starts AWS runs test by test in several processes. What is deployed runs
# file by file in several, each with a deployment of its own. What is timed runs alone.
PROCESSES ?= auto
DEPLOYMENTS ?= 2
PYTEST := $(BIN)/pytest
E2E := $(PYTEST) -n $(DEPLOYMENTS) --dist loadfile --no-loadscope-reorder tests/e2e

export SAM_CLI_TELEMETRY := 0
# A run starts hundreds of Python processes: what the first has compiled, the others read.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup demo local invoke test unit integration e2e soak weather proof lint sim bench build release audit check-policy schema dashboard commands pictures lock clean

help:  ## What there is to do
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: $(READY)  ## The virtual environment, with everything in it

$(READY): requirements-dev.txt pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.13 is needed: install it, or name it with make PYTHON=/path/to/python3.13"; exit 1; }
	@echo "setting up $(VENV) (some minutes the first time)"
	@$(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/pip install -qq --disable-pip-version-check --require-hashes -r requirements-dev.txt
	@$(BIN)/pip install -qq --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(READY)  ## Everything from nothing: deploy to AWS on this machine, mail every story, show what came back
	@$(BIN)/python -m local.demo

local: $(READY)  ## The same, and stay up for your own mails until Ctrl-C; WEATHER=storm:7 lets AWS be unkind
	@exec $(BIN)/python -m local.demo --stay --weather "$(WEATHER)"

invoke: $(READY)  ## sam local invoke in Lambda's container: make invoke EVENT=events/unknown-recipient.json
	@test -n "$(EVENT)" || { echo "name an event: make invoke EVENT=events/unknown-recipient.json"; exit 2; }
	@$(BIN)/python -m local.docker "$(EVENT)"

test: $(READY)  ## Every test: the fast ones beside those of what is deployed, then what is timed
	@exec $(BIN)/python -m local.tests $(PROCESSES) $(DEPLOYMENTS)

unit: $(READY)  ## The tests of pure code (half a minute)
	@$(PYTEST) -n $(PROCESSES) tests/unit

integration: $(READY)  ## The tests of adapters, handlers and the command, with AWS in the process
	@$(PYTEST) -n $(PROCESSES) tests/contract tests/integration

e2e: $(READY)  ## The tests of what is built and deployed, on AWS on this machine
	@$(E2E)

soak: $(READY)  ## Thousands of examples, events and worlds where `make test` takes some (an hour)
	@SOAK=1 $(PYTEST) -n $(PROCESSES) tests/unit tests/contract tests/integration tests/sim

weather: $(READY)  ## Every weather of AWS on this machine, killed processes and all (three quarters of an hour)
	@ALL_WEATHER=1 $(PYTEST) --log-cli-level=INFO tests/e2e/test_weather.py

proof: $(READY)  ## Fifty processes at once: the pace, and the quotas
	@$(PYTEST) tests/proof

lint: $(READY)  ## Style, types, template, policy and workflows
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/sam validate --lint
	@$(BIN)/bouncer policy check
	@$(BIN)/zizmor --offline --quiet .github/workflows

audit: $(READY)  ## Known vulnerabilities in what is pinned; needs the network
	@for each in layers/bouncer/requirements.txt requirements-dev.txt; do \
	  $(BIN)/pip-audit --disable-pip --require-hashes --requirement $$each || failed=1; \
	done; test -z "$$failed"

sim: $(READY)  ## The system in virtual time, faults at every step: make sim SEEDS=10000, or SEED=n to replay one
	@$(BIN)/python -m sim $(if $(SEED),--seed $(SEED),--seeds $(or $(SEEDS),1000))

bench: $(READY)  ## The limiter beside its peers, a day of flood, the cost of deciding (four minutes)
	@$(MAKE) --no-print-directory $(BENCH)/.ready || echo "not everything is installed; the table says what is missing"
	@$(BIN)/python -m bench

$(BENCH)/.ready: bench/requirements.txt bench/package-lock.json
	@echo "setting up $(BENCH) (some minutes the first time)"
	@rm -rf $(BENCH)
	@$(BIN)/pip install -qq --disable-pip-version-check --require-hashes --target $(BENCH) -r bench/requirements.txt
	@cp bench/package.json bench/package-lock.json $(BENCH)
	@! command -v npm >/dev/null || npm ci --silent --ignore-scripts --no-audit --no-fund --prefix $(BENCH)
	@touch $@

build: $(READY) check-policy  ## sam build, of a policy that was checked
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/sam build

release: build  ## Wheel, sdist, the built application as a zip, checksums: into dist/
	@$(BIN)/python -m local.release

check-policy: $(READY)
	@$(BIN)/bouncer policy check

schema: $(READY)  ## Write the policy's schema into the template, after a change of the file format
	@$(BIN)/python -m local.schema

dashboard: $(READY)  ## Write the CloudWatch dashboard into the template, after a change of local/dashboard.py
	@$(BIN)/python -m local.dashboard

commands: $(READY)  ## Write docs/commands.md, after a change of the command's help
	@$(BIN)/python -m local.commands

pictures: $(READY)  ## Write the pictures of the page, docs/img/web-*.png (needs Chromium)
	@$(BIN)/python -m local.pictures

lock: $(READY)  ## Pin the newest versions, with hashes
	@cd layers/bouncer && ../../$(BIN)/uv pip compile --quiet --upgrade requirements.in -o requirements.txt $(PINS)
	@$(BIN)/uv pip compile --quiet --upgrade requirements-dev.in -c layers/bouncer/requirements.txt -o requirements-dev.txt $(PINS)
	@$(BIN)/uv pip compile --quiet --upgrade bench/requirements.in -c requirements-dev.txt -o bench/requirements.txt $(PINS)
	@! command -v npm >/dev/null || npm install --package-lock-only --omit-lockfile-registry-resolved --ignore-scripts --no-audit --no-fund --prefix bench

PINS := --universal --python-version 3.13 --generate-hashes --no-emit-index-url --no-header

clean:  ## Remove what was built or written here
	rm -rf .venv .aws-sam .local dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
