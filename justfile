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

# Measure: a release build, then every benchmark at full size
bench *arguments:
    .venv/bin/maturin develop --release --locked --quiet
    .venv/bin/pytest benchmarks --benchmark-enable --benchmark-only {{ arguments }}

# Format all sources
format:
    cargo fmt --all
    .venv/bin/ruff check --fix --select I
    .venv/bin/ruff format

# Build a wheel into target/wheels
wheel:
    .venv/bin/maturin build --release --locked
