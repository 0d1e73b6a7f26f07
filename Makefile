# One word per thing to do; `make` lists them.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.SILENT:
.DEFAULT_GOAL := help

CARGO ?= cargo
# Seconds per fuzz target.
FUZZ_SECONDS ?= 20
# Only these fuzz targets, such as `make fuzz FUZZ_TARGETS=frame`.
FUZZ_TARGETS ?=
# Set to 1 to let tests be skipped that this machine cannot run, such as those that mount a small disk and need root.
ALLOW_SKIPS ?=
# Set to 1 to have `make prove` try less.
QUICK ?=

SKIPS := $(CURDIR)/target/skipped.txt
# What the long tests found, in figures.
PROOFS := $(CURDIR)/target/soaked.txt
# Without them their tests are skipped. With SIGNET_TEST_PQC=1 the second one builds a token that has ML-DSA and ML-KEM as well.
JUDGES := ./tests/judges/install || [ -n "$(ALLOW_SKIPS)" ]
MODULE := CARGO="$(CARGO)" ./tests/kryoptic/install || [ -n "$(ALLOW_SKIPS)" ]

.PHONY: help deps build check test golden demo bench prove fuzz soak clean

help: ## lists what there is to do
	sed -nE 's/^([a-z]+):.*## (.*)/  make \1\t\2/p' Makefile | expand -t 16

deps: ## installs the Debian packages that building and the demonstration need, where one is missing
	./.ci/deps

.PHONY: test-deps
test-deps:
	./.ci/deps test

build: ## builds the program for use: target/release/signet
	$(CARGO) build --locked --release --bin signet

check: test-deps ## the form of the code, lints, and the rules of the dependencies
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	# tests/dependencies.rs holds the same rules where cargo-deny is not installed; advisories need a network.
	if command -v cargo-deny >/dev/null; then cargo deny --workspace check bans licenses sources; fi

test: check ## everything that continuous integration runs; fails if a test was skipped
	mkdir -p target
	rm -f "$(SKIPS)"
	# First all of it: tests start the program, and the fault module is a library that no test links.
	$(CARGO) build --locked --workspace --all-targets
	$(JUDGES)
	$(MODULE)
	SIGNET_TEST_SKIPS="$(SKIPS)" $(CARGO) test --locked --workspace
	if [ -s "$(SKIPS)" ] && [ -z "$(ALLOW_SKIPS)" ]; then
		sort -u "$(SKIPS)" >&2
		echo "hint: a skipped test tests nothing: install what is missing, or allow it with make test ALLOW_SKIPS=1" >&2
		exit 1
	fi

golden: ## renews the files of tests/golden that are made from the code; review the diff
	$(CARGO) build --locked --workspace --all-targets
	SIGNET_RENEW_GOLDEN=1 $(CARGO) test --locked --workspace --quiet >/dev/null || true
	git status --short tests/golden docs

demo: deps build ## does the main job in front of you, on a SoftHSM token and a software TPM
	./demo/run

bench: ## measures against the raw device in the same run
	$(CARGO) bench --locked --bench audit --bench revocation --bench service

prove: test-deps ## prints what was tried here, how often, and what came of it; two hours, or ten minutes with QUICK=1
	CARGO="$(CARGO)" QUICK="$(QUICK)" ./tests/prove

fuzz: ## throws damaged input at every decoder, FUZZ_SECONDS each
	./.ci/deps fuzz
	FUZZ_SECONDS="$(FUZZ_SECONDS)" ./fuzz/run $(FUZZ_TARGETS)

soak: ## the long tests, some hours: many more random cases, ML-DSA and ML-KEM in a token, and five minutes of each fuzz target
	./.ci/deps test fuzz
	export SIGNET_TEST_PQC=1
	mkdir -p target
	$(JUDGES)
	$(MODULE)
	rm -f "$(PROOFS)"
	PROPTEST_CASES=20000 SIGNET_TEST_KILLS=200 SIGNET_TEST_DEATHS=2400 SIGNET_TEST_WORKER_KILLS=1000 SIGNET_TEST_CELLS=20000 \
		SIGNET_TEST_RECOVERIES=1000 SIGNET_TEST_OPERATIONS=10000000 SIGNET_TEST_FALSIFIED=1000000 \
		SIGNET_TEST_SKIPS="$(SKIPS)" SIGNET_PROOFS="$(PROOFS)" $(CARGO) test --locked --workspace
	awk -F'\t' '{ printf "%-60s %9d  %s\n", $$1, $$2, $$3 }' "$(PROOFS)"
	FUZZ_SECONDS=300 ./fuzz/run

clean: ## removes what was built
	$(CARGO) clean
	rm -rf fuzz/target
