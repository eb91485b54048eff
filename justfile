# The commands of this project. Each line also works by hand, without just.

# Serve the demo
demo *arguments:
    python3 -m venv .venv && .venv/bin/pip install --quiet '.[demo]' && .venv/bin/fraiseql-subs demo {{ arguments }}

# Everything that must hold; what CI runs
check:
    ./check

# Tests alone, against the extension as last built
test *arguments:
    .venv/bin/pytest {{ arguments }}

# Compare who receives what with the model, with other cases at each run: four million pairs of subscription and event, or more
oracle factor="20" *arguments="tests/test_oracle_security.py":
    ORACLE={{ factor }} .venv/bin/pytest --timeout=0 -s {{ arguments }}

# Break connections, servers and processes under load, at other moments each time
faults times="20" *arguments="tests/test_faults.py":
    FAULTS={{ times }} .venv/bin/pytest --timeout=0 -s {{ arguments }}

# Measure: a release build, then every benchmark at full size
bench *arguments:
    .venv/bin/maturin develop --release --locked --quiet
    .venv/bin/pytest benchmarks --benchmark-enable --benchmark-only {{ arguments }}

# What one account notices of another that does the worst that its limits allow: a release build, then a minute on each bus
neighbours *arguments:
    .venv/bin/maturin develop --release --locked --quiet
    .venv/bin/python -m benchmarks.neighbours memory {{ arguments }}
    .venv/bin/python -m benchmarks.neighbours redis {{ arguments }}

# Count the engine's instructions, case by case, and compare with benchmarks/instructions.tsv; `--record` writes it (needs valgrind)
instructions *arguments:
    python3 benchmarks/instructions/run.py {{ arguments }}

# Feed the engine what nobody would send it: `just fuzz`, `just fuzz json 60` (needs a nightly compiler and cargo-fuzz)
fuzz targets='admission json protocol' seconds='600':
    @cargo +nightly fuzz --version >/dev/null || { echo 'First: rustup toolchain install nightly && cargo install --locked cargo-fuzz@0.13.2'; exit 1; }
    for one in {{ targets }}; do \
        mkdir -p target/fuzz/found/$one && \
        cargo +nightly fuzz run --fuzz-dir rust/fuzz --target-dir target/fuzz $one target/fuzz/found/$one rust/fuzz/corpus/$one -- \
            -dict=rust/fuzz/dictionaries/$one.dict -max_total_time={{ seconds }} -timeout=20 || exit 1; \
    done

# Change the engine in one place at a time, and see whether a test notices; takes hours (needs cargo-mutants)
mutants *arguments:
    @cargo mutants --version >/dev/null || { echo 'First: cargo install --locked cargo-mutants@27.1.0'; exit 1; }
    cargo mutants --config rust/mutants.toml --package fraiseql-subs-engine --output target {{ arguments }}

# Format all sources
format:
    cargo fmt --all
    .venv/bin/ruff check --fix --select I
    .venv/bin/ruff format

# Build a wheel into target/wheels
wheel:
    .venv/bin/maturin build --release --locked
