# Every task is one command here, and CI runs the same ones. Anything with logic is a Rust test or a subcommand, not a recipe.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

SEED ?= 1
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
export PATH := $(HOME)/.cargo/bin:$(PATH)

# The faster test runner where it is installed; the same tests either way. It does not run doc tests.
NEXTEST := $(shell cargo nextest --version >/dev/null 2>&1 && echo yes)
ROOT := $(shell [ "$$(id -u)" = 0 ] || echo sudo)

## help: this list
.PHONY: help
help:
	@awk -F ': ' '/^## / { printf "  make %-10s %s\n", substr($$1, 4), $$2 }' $(firstword $(MAKEFILE_LIST))

## setup: install what building and testing need, where it is missing
.PHONY: setup
setup: rust system-packages redis-server .venv/ready .venv-llamaindex/ready .venv-providers/ready

.PHONY: rust
rust:
	@command -v cargo >/dev/null || { printf '%s\n' \
	  'Rust is not installed. Get it with' '' \
	  "    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y" '' \
	  'or see https://rustup.rs, then run this again.' >&2; exit 1; }

# A C compiler (the cryptography of rustls has C and assembly in it) and Python with venv.
.PHONY: system-packages
system-packages:
	@missing=; \
	command -v cc >/dev/null || missing="$$missing gcc libc6-dev"; \
	python3 -c 'import ensurepip, venv' 2>/dev/null || missing="$$missing python3 python3-venv"; \
	[ -z "$$missing" ] || $(MAKE) --no-print-directory apt PACKAGES="$$missing"

# A real server for the tests of limits that replicas share; each starts its own.
.PHONY: redis-server
redis-server:
	@command -v redis-server >/dev/null || $(MAKE) --no-print-directory apt PACKAGES=redis-server

.PHONY: apt
apt:
	@command -v apt-get >/dev/null || { echo "please install: $(PACKAGES)" >&2; exit 1; }
	$(ROOT) apt-get update -qq
	$(ROOT) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(PACKAGES)

.venv/ready: tests/sdk/requirements.txt
	rm -rf .venv && python3 -m venv .venv
	.venv/bin/pip install --quiet --requirement $<
	touch $@

.venv-llamaindex/ready: tests/sdk/requirements-llamaindex.txt
	rm -rf .venv-llamaindex && python3 -m venv .venv-llamaindex
	.venv-llamaindex/bin/pip install --quiet --requirement $<
	touch $@

.venv-providers/ready: tests/sdk/requirements-providers.txt
	rm -rf .venv-providers && python3 -m venv .venv-providers
	.venv-providers/bin/pip install --quiet --requirement $<
	touch $@

## build: the program, optimized, at target/release/tidegate
.PHONY: build
build: rust system-packages
	cargo build --locked --release --package tidegate-gateway

## demo: a real trace against a limited provider, with and without Tidegate
.PHONY: demo
demo: build
	$(TARGET_DIR)/release/tidegate demo

## test: unit, property and gateway tests, doc tests, the simulation, the official SDKs
.PHONY: test
test: setup
ifeq ($(NEXTEST),yes)
	cargo nextest run --locked --workspace --no-fail-fast
else
	cargo test --locked --workspace --no-fail-fast --lib --bins --tests --examples
endif
	cargo test --locked --workspace --doc --quiet
	@$(MAKE) --no-print-directory test-sdk

## test-sdk: the official SDKs and frameworks, unmodified, against the real program
.PHONY: test-sdk
test-sdk: setup
	cargo build --locked --package tidegate-gateway
	TIDEGATE=$(TARGET_DIR)/debug/tidegate .venv-llamaindex/bin/python -m pytest tests/sdk/test_llamaindex.py
	TIDEGATE=$(TARGET_DIR)/debug/tidegate .venv/bin/python -m pytest tests/sdk --ignore tests/sdk/test_llamaindex.py --ignore tests/sdk/providers
	TIDEGATE=$(TARGET_DIR)/debug/tidegate .venv-providers/bin/python -m pytest tests/sdk/providers

## check: formatting, clippy, documentation, licences
.PHONY: check
check: rust system-packages
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- --deny warnings
	RUSTDOCFLAGS='--deny warnings' cargo doc --locked --workspace --no-deps --document-private-items --quiet
	@if cargo deny --version >/dev/null 2>&1; then $(MAKE) --no-print-directory deny; \
	 else echo 'licences not checked: cargo-deny is missing (cargo install --locked cargo-deny)'; fi

## deny: licences, sources and banned crates (needs cargo-deny)
.PHONY: deny
deny:
	cargo deny --locked --log-level error check licenses sources bans

## sim: limiters against algorithms, every provider's profile over 20,000 minutes, who goes next; reproducible from SEED
.PHONY: sim
sim: rust
	cargo run --locked --release --quiet --package tidegate-sim -- --seed $(SEED)
	cargo run --locked --release --quiet --package tidegate-sim -- profiles --seed $(SEED)
	cargo run --locked --release --quiet --package tidegate-sim -- order --seed $(SEED)

## bench: the table of budgets, nginx beside it in the same run, and of the shared ledger beside INCR (PARTS="engine throughput latency streams connections memory")
.PHONY: bench
bench: rust system-packages redis-server
	@command -v nginx >/dev/null || [ -x /usr/sbin/nginx ] || ! command -v apt-get >/dev/null \
	  || $(MAKE) --no-print-directory apt PACKAGES=nginx-light \
	  || echo 'nginx could not be installed: its rows will be missing'
	ulimit -n "$$(ulimit -Hn)" && cargo bench --locked --package tidegate-gateway --bench budget -- $(PARTS)
	cargo bench --locked --package tidegate --features redis --bench ledger

## replicas: gateways sharing limits through one Redis while things go wrong, one table (PARTS="killed frozen clock")
.PHONY: replicas
replicas: rust system-packages
	@command -v redis-server >/dev/null || $(MAKE) --no-print-directory apt PACKAGES=redis-server
	ulimit -n "$$(ulimit -Hn)" && cargo bench --locked --package tidegate-gateway --bench replicas -- $(PARTS)

## bless: rewrite golden files and generated references
.PHONY: bless
bless: rust
	TIDEGATE_BLESS=1 cargo test --locked --workspace --quiet

## ci: all that a change must pass
.PHONY: ci
ci: check test
