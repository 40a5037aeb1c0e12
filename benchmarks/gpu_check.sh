#!/bin/sh
# Builds, tests and measures on a GPU machine; gpu_check.py says how. `make gpu-check` calls it.
cd "$(dirname "$0")/.." || exit 1
exec "${PYTHON:-python3}" benchmarks/gpu_check.py "$@"
