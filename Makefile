# The verbs of this repository; `make help` lists them. CI calls the same ones.
#
# Every verb needs Python 3.11 or newer and nothing else: deploy/venv.sh makes the virtual
# environment from requirements/dev.txt before the first one, and again when that file has changed.

RUN := sh deploy/venv.sh dev
PYTEST := $(RUN) -m pytest
# A few tests at a time, a file in one process; each process has servers of its own.
SPREAD := -n auto --maxprocesses 4 --dist loadfile
# Folders with Python code; those that are not there yet are left out.
CODE := $(wildcard services libs cli deploy tests benchmarks)
# Markers of the tests that need more than Python; each has a verb of its own.
NEEDS_MORE := chromium or docker or sshd or soak
SERVICE_GROUPS := ingest indicators signals writer simulator gateway notifier init backup \
	export operator cli kite
# Exact versions and hashes for all platforms; no address of an index, because mirrors differ.
LOCK := UV_CUSTOM_COMPILE_COMMAND="make lock" $(RUN) -m uv pip compile pyproject.toml --quiet \
	--universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links \
	$(if $(UPGRADE),--upgrade)

NPM := $(RUN) -m cli.node npm --prefix dashboard
# Written by npm when it is through.
NODE_MODULES := dashboard/node_modules/.package-lock.json

.DEFAULT_GOAL := help
.PHONY: help setup lock check fmt docs test unit integration e2e containers faults bench
.PHONY: dashboard pictures release

help: ## list the verbs
	@awk -F ':.*## ' '/^[a-z0-9]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## make the virtual environment (the other verbs do so by themselves)
	@$(RUN) -c 'import sys; print("environment:", sys.prefix)'

lock: ## compile the dependency groups to requirements/ (UPGRADE=1 takes newer versions)
	$(LOCK) --group dev -o requirements/dev.txt
	@set -e; for group in $(SERVICE_GROUPS); do echo "requirements/$$group.txt"; \
		$(LOCK) --group $$group -c requirements/dev.txt -o requirements/$$group.txt; done
	$(LOCK) --group bench -o requirements/bench.txt

check: ## lint, format, types, import rules
	$(RUN) -m ruff check $(CODE)
	$(RUN) -m ruff format --check $(CODE)
	$(RUN) -m mypy $(CODE)
	$(RUN) -c 'from importlinter.cli import lint_imports_command as run; run()' --no-cache

fmt: ## format the code and mend what the linter can
	$(RUN) -m ruff check --fix $(CODE)
	$(RUN) -m ruff format $(CODE)

docs: ## write what is generated (docs/settings.md, the dashboards of Grafana)
	$(RUN) -m deploy.settings_page
	$(RUN) -m deploy.grafana.dashboards

test: ## every test that needs only Python
	$(PYTEST) $(SPREAD) -m "not ($(NEEDS_MORE))" $(ARGS)
	@echo "not run here: tests that need Chromium (make e2e), Docker or sshd (make containers)," \
		"or minutes of faults (make faults)"

unit: ## cores, contracts and our own rules: seconds, no server
	$(PYTEST) -m "not ($(NEEDS_MORE))" tests/unit tests/test_tidy.py $(ARGS)

integration: ## against a real NATS server and Postgres, which come with the packages
	$(PYTEST) $(SPREAD) -m "not ($(NEEDS_MORE))" \
		$(wildcard tests/contract tests/integration tests/e2e) $(ARGS)

dashboard: $(NODE_MODULES) ## the page: types, unit tests, build
	$(NPM) run typecheck
	$(NPM) test
	$(NPM) run build

$(NODE_MODULES): dashboard/package-lock.json
	$(NPM) ci --no-audit --no-fund --ignore-scripts

e2e: $(NODE_MODULES) ## the page in a browser; needs Chromium
	@$(call marked,chromium)

pictures: ## take the README's picture of the page anew; needs Chromium
	KITE_TEST_PICTURES=docs/images $(PYTEST) -m chromium -k readme

containers: ## deploy over ssh; build the images, run them, try their walls; needs sshd, Docker
	@$(call marked,sshd,$(SPREAD))
	@$(call marked,docker)

release: ## build the images of this commit and what a host needs with them; needs Docker
	$(RUN) -m deploy.release $(VERSION)

faults: ## strike the running stack again and again, and let weeks go by (ARGS="--trials 100")
	$(RUN) -m tests.faults $(ARGS)
	@$(if $(filter --rows --replay --sensitivity,$(ARGS)),,$(PYTEST) $(SPREAD) \
		-m "soak$(if $(filter --short,$(ARGS)), and not weeks)")

# Pytest ends with 5 when no test carries the marker; a marker without tests is no failure.
marked = $(PYTEST) $(2) -m $(1) $(ARGS) || { code=$$?; \
	if [ $$code -eq 5 ]; then echo "there are no $(1) tests yet"; else exit $$code; fi; }

bench: $(NODE_MODULES) ## measure; one JSON line per figure (ARGS=--short for a quick look)
	@if [ -e benchmarks/__main__.py ]; then $(RUN) -m benchmarks $(ARGS); \
	else echo "there are no benchmarks yet" >&2; fi
