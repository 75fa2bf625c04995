# Schoolbell. `make` lists what can be asked for. Nothing but Python 3.13 and make is needed; tools go below .venv.

$(if $(word 2,$(CURDIR)),$(error The path of the checkout has a space, which make cannot take: $(CURDIR)))

SHELL := /bin/sh
.DEFAULT_GOAL := help
.SUFFIXES:
.DELETE_ON_ERROR:

export SAM_CLI_TELEMETRY := 0

dev := .venv/dev
python := $(dev)/bin/python
stack := .venv/dev/.ready .venv/dev/bin/schoolbell .venv/sam/.ready .venv/emulator/.ready

##@ The stack on this machine
up: $(stack)  ## Start it, or bring it up to date with the code (AUTH=true enforces IAM; CONTAINERS=true for sam local)
	@$(python) -m local up

down: $(stack)  ## Stop it; the database's data stay
	@$(python) -m local down

status: $(stack)  ## What is running, and where
	@$(python) -m local status

logs: $(stack)  ## The functions' logs: FOLLOW=1 to go on, JOB=tutoring-auto-complete for one
	@$(python) -m local logs $(if $(FOLLOW),--follow) $(JOB)

invoke: $(stack)  ## Invoke a job with its event of events/: JOB=tutoring.lifecycle-detection (EVENT=file for another)
	@$(python) -m local invoke $(JOB) $(if $(EVENT),--event $(EVENT))

demo: $(stack)  ## See all jobs at work
	@$(python) -m local.demo

sam: .venv/sam/.ready  ## Install the SAM CLI, and run it: ARGS='local invoke Platform/Health -e events/platform/health.json'
	@if [ -n '$(subst ','\'',$(ARGS))' ]; then PATH="$(CURDIR)/.venv/sam/bin:$$PATH" sam $(ARGS); else \
		echo 'To use it from a shell: export PATH="$$PWD/.venv/sam/bin:$$PATH"'; fi

##@ Working on it
test: $(stack) .venv/checkov/.ready build  ## Run all tests (ARGS='-k waitlist' for some)
	@$(python) -m pytest -n $(processes) --dist loadgroup $(ARGS)

# One for each core, and one for the end-to-end tests, which wait for most of their time.
processes := $(shell echo $$(($$(getconf _NPROCESSORS_ONLN) + 1)))

lint: .venv/dev/.ready  ## Check style, types and the imports between packages
	@$(dev)/bin/ruff check . && $(dev)/bin/ruff format --check . && $(dev)/bin/mypy . && PYTHONPATH=.:shared $(dev)/bin/lint-imports

bench: $(stack) build  ## Measure; the table is kept in benchmarks/RESULTS.md
	@PYTHONPATH=.:shared $(python) -m benchmarks $(ARGS)

cost: .venv/dev/.ready  ## What a month on AWS costs, worked out from the templates; kept in docs/cost.md
	@PYTHONPATH=.:shared $(python) -m local.cost

build: $(stack)  ## Build the layers and functions for this machine's processor
	@$(python) -m local build

lock: .venv/bootstrap/.ready  ## Pin the newest versions of everything anew
	@$(foreach r,$(requirements),$(compile) --upgrade $(r) --output-file $(r:.in=.txt) $(call options,$(r)) && ) true

clean: ## Stop the stack; delete its data, all that was built, and the tools
	@if [ -x $(python) ]; then $(python) -m local down --purge; fi
	rm -rf .venv .aws-sam .local

help:
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n\033[1m%s\033[0m\n", substr($$0, 5)} \
		/^[a-z]+:.*## / {printf "  \033[36mmake %-8s\033[0m %s\n", substr($$1, 1, index($$1 ":", ":") - 1), $$2}' $(MAKEFILE_LIST); echo

# The tools' environments: made when they are missing, and again when what is pinned changes

# uv is five times as fast as pip, which takes over where uv does not know the way to a package index and pip does.
.venv/%/.ready: requirements/%.txt .venv/bootstrap/.ready
	@$(find_python) \
	echo "Installing .venv/$*"; \
	rm -rf .venv/$*; \
	"$$found" -m venv .venv/$* || exit 1; \
	.venv/bootstrap/bin/uv pip install --quiet --python .venv/$*/bin/python --compile-bytecode $(pinned) || \
		.venv/$*/bin/python -m pip install --quiet --disable-pip-version-check $(pinned) || exit 1; \
	touch $@

# The command line, run from the checkout. All that it needs is there already, so nothing is asked of a package index.
.venv/dev/bin/schoolbell: .venv/dev/.ready pyproject.toml
	@$(python) -m pip install --quiet --disable-pip-version-check --no-index --no-deps --no-build-isolation \
		--editable . || exit 1; \
	touch $@

.venv/bootstrap/.ready: requirements/bootstrap.txt
	@$(find_python) \
	rm -rf .venv/bootstrap; \
	"$$found" -m venv .venv/bootstrap || exit 1; \
	.venv/bootstrap/bin/python -m pip install --quiet --disable-pip-version-check $(pinned) || exit 1; \
	touch $@

pinned = --require-hashes --no-deps --requirement $<

find_python = found=$$(local/find-python --fetch venv ensurepip) || exit 1;

layered := layers/google/requirements.in layers/migrations/requirements.in layers/notifications/requirements.in \
	layers/operations/requirements.in
requirements := layers/runtime/requirements.in $(layered) \
	requirements/bootstrap.in requirements/emulator.in requirements/sam.in requirements/checkov.in requirements/dev.in
compile = .venv/bootstrap/bin/uv pip compile --quiet --generate-hashes --no-emit-index-url --no-annotate --no-header \
	--python-version 3.13 --python-platform x86_64-manylinux_2_28
# A layer holds what the runtime layer doesn't, and the tests run on the very versions of the layers.
options = $(if $(filter $(layered) requirements/dev.in,$(1)),-c layers/runtime/requirements.txt) \
	$(if $(filter requirements/dev.in,$(1)),$(foreach layer,$(layered),-c $(layer:.in=.txt))) \
	$(if $(filter $(layered),$(1)),$(foreach package,$(in_runtime),--no-emit-package $(package)))
in_runtime := sqlalchemy typing-extensions python-dateutil six

.PHONY: up down status logs invoke demo sam test lint bench cost build lock clean help
.PRECIOUS: .venv/%/.ready
