# Everything that a developer calls. `make test` is what CI runs.

CARGO ?= cargo
N ?= 5

.PHONY: build test test-waiting test-computing lint doc ring bench figures proto trace soak fuzz audit clean

build: ## the program, target/release/chordkv
	$(CARGO) build --release --locked

# The tests with disks of their own mostly wait: they run beside the simulator, which computes. What measures times is alone.
TESTS = $(notdir $(basename $(wildcard tests/*.rs)) $(patsubst %/main.rs,%,$(wildcard tests/*/main.rs)))
WAITING = disk
COMPUTING = simulation model
QUIET = $(filter-out $(WAITING) $(COMPUTING),$(TESTS))

test: lint doc ## format, lints, docs, all tests
	$(CARGO) test --locked --all-targets --no-run
	$(MAKE) -j2 test-waiting test-computing
	$(CARGO) test --locked --bins --benches $(QUIET:%=--test %)
	$(CARGO) test --locked --doc

test-waiting:
	$(CARGO) test --locked $(WAITING:%=--test %) --no-fail-fast

test-computing:
	$(CARGO) test --locked --lib $(COMPUTING:%=--test %) --no-fail-fast

lint:
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings

doc:
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps --document-private-items

ring: build ## N nodes on loopback until Ctrl-C: make ring N=5
	@sh scripts/ring.sh target/release/chordkv $(N)

bench: ## criterion; figures go to target/criterion
	$(CARGO) bench --locked

figures: build ## docs/figures.md and its plots, measured in the simulator: a quarter of an hour and 10 GB on two cores
	target/release/chordkv sim figures --out docs

proto: ## src/wire/pb.rs, src/wire/shapes.rs and the golden bytes, from proto/peer.proto
	CHORDKV_PROTO=write $(CARGO) test --test proto
	CHORDKV_PROTO=write $(CARGO) test --lib wire

trace: build ## a simulated run is the same whatever the compiler optimises
	$(CARGO) build --locked
	@for program in debug release; do \
	    target/$$program/chordkv sim --nodes 60 --churn 1 --kill 0.2 --lookups 500 | grep trace; \
	done | uniq -c | grep -q '^ *2 ' || { echo "the traces of both builds differ" >&2; exit 1; }

soak: trace ## the simulator for hours: SEEDS fresh seeds for every test; real rings killed 50 times, 3,000 power cuts
	CHORDKV_KILLS=50 $(CARGO) test --release --test ring surviving -- --nocapture
	CHORDKV_KILLS=1000 $(CARGO) test --release --test disk -- --nocapture
	CHORDKV_SEEDS=$${SEEDS:-5000} $(CARGO) test --release --test simulation -- --nocapture
	CHORDKV_SEEDS=$$(( $${SEEDS:-5000} * 20 )) $(CARGO) test --release --lib copies -- --nocapture

fuzz: ## every fuzz target, SECONDS_EACH (600) long; needs cargo-fuzz and a nightly toolchain
	@for target in $$(sed -n 's/^name = "\([a-z]*\)"/\1/p' fuzz/Cargo.toml); do \
	    mkdir -p fuzz/scratch/$$target; \
	    $(CARGO) +nightly fuzz run -s none $$target fuzz/scratch/$$target fuzz/corpus/$$target -- \
	        -max_total_time=$${SECONDS_EACH:-600} -timeout=10 -max_len=4096 -print_final_stats=1 || exit 1; \
	done

audit: ## licences and sources of all dependencies, advisories where their database can be reached
	@command -v cargo-deny >/dev/null || $(CARGO) install --locked cargo-deny
	$(CARGO) deny --all-features check -D warnings licenses bans sources
	@if $(CARGO) deny fetch db 2>/dev/null; then $(CARGO) deny --all-features check -D warnings advisories; \
	else echo "the database of advisories cannot be reached: not checked" >&2; fi

clean:
	$(CARGO) clean
