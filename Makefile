# `make` lists what can be done. Everything sets itself up first.

PYTHON ?= python3
RUN := .venv/bin/python

.PHONY: help demo provision-demo bench-setup test lint format bench simulate endure soak screenshots lock clean setup-demo setup-bench setup-test bench-firmware simulate-firmware
.DEFAULT_GOAL := help

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | awk -F'\t' '{printf "  make %-22s %s\n", $$1, $$2}'

demo: setup-demo ## the whole system on this machine; PRESSES=5 tests it instead and stops
	@exec $(RUN) -m demo $(if $(PRESSES),--presses $(PRESSES)) $(if $(PORT),--port $(PORT))

provision-demo: setup-bench ## a bare board becomes a trusted button, on this machine
	@exec $(RUN) -m demo.provision

bench-setup: setup-bench ## what `tocsin provision` needs, on a technician's laptop
	@echo "Ready: .venv/bin/tocsin provision --help"

test: setup-test ## every test, lint and types included
	@$(MAKE) --no-print-directory lint
	@$(RUN) -m pytest $(ARGS)

lint: setup-test ## style and types
	@$(RUN) -m ruff check .
	@$(RUN) -m ruff format --check --quiet . || { echo "run: make format"; exit 1; }
	@$(RUN) -m mypy
	@$(RUN) -m mypy --config-file firmware/mypy.ini

format: setup-test ## put the code into the house style
	@$(RUN) -m ruff format .
	@$(RUN) -m ruff check --fix .

bench: setup-test ## measure; ONLY=heartbeats, growth, journal, backlog or throughput: one part; ARGS=--write writes docs/benchmarks.md
	@exec $(RUN) -m tests.bench $(if $(ONLY),--only $(ONLY)) $(if $(EVENTS),--events $(EVENTS)) $(ARGS)

bench-firmware: setup-test ## the button's MQTT client beside others, on MicroPython; ARGS=--write writes docs/firmware.md
	@exec $(RUN) -m tests.firmware.clients $(ARGS)

simulate: setup-test ## the whole system under simulated faults: SCHEDULES=100000 SEED=0; one of them in words: STORY=n
	@exec $(RUN) -m tests.simulation $(if $(STORY),--story --seed $(STORY),--schedules $(or $(SCHEDULES),100000) --seed $(or $(SEED),0))

endure: setup-test ## what years do to a button's memory: HEARTBEATS=1000000 RECONNECTS=1000 LIES=100000, 20 minutes
	@exec $(RUN) -m tests.firmware.endure --heartbeats $(or $(HEARTBEATS),1000000) --reconnects $(or $(RECONNECTS),1000) --lies $(or $(LIES),100000)

simulate-firmware: setup-test ## a button's firmware under simulated faults: SCHEDULES=100000 SEED=0; one of them in words: STORY=n
	@exec $(RUN) -m tests.firmware.simulation $(if $(STORY),--story --seed $(STORY),--schedules $(or $(SCHEDULES),100000) --seed $(or $(SEED),0))

soak: setup-test ## random kills, freezes and cuts of the real processes for MINUTES=10
	@exec $(RUN) -m tests.faults.soak --minutes $(or $(MINUTES),10) $(if $(SEED),--seed $(SEED))

screenshots: setup-test ## make the README's pictures again
	@exec $(RUN) -m tests.browser.screenshots

lock: setup-test ## resolve the dependencies again
	@$(RUN) tools/lock.py

clean: ## remove everything that was set up or made here
	@rm -rf .cache .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

setup-demo:
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 or newer is needed: apt install python3"; exit 1; }
	@$(PYTHON) tools/setup.py demo

setup-bench:
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 or newer is needed: apt install python3"; exit 1; }
	@$(PYTHON) tools/setup.py bench

setup-test:
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 or newer is needed: apt install python3"; exit 1; }
	@$(PYTHON) tools/setup.py test
