"""Speed and memory of the fused logistic mixture likelihood.

    python benchmarks/bench_logistic_mixture.py [--rounds 15] [--save]
    pytest benchmarks/bench_logistic_mixture.py         the same calls under pytest-benchmark

Prints a table, or refuses if the kernels are not loaded or the op fails its check.
"""

import argparse
import sys
from pathlib import Path

import pytest

from hvae.bench import logistic_mixture, report
from hvae.bench.measure import one_thread
from hvae.errors import UserError

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    parser = argparse.ArgumentParser(description="Speed and memory of the mixture likelihood")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--save", action="store_true", help=f"write JSON and table to {RESULTS}")
    args = parser.parse_args()
    try:
        comparisons = list(logistic_mixture.run(rounds=args.rounds))
    except (UserError, AssertionError) as error:
        sys.exit(f"no figures: {error}")
    table = report.markdown(comparisons)
    with one_thread():
        print(report.headline(report.machine()), table, sep="\n\n")
        if args.save:
            report.save("logistic_mixture", comparisons, table, RESULTS)


@pytest.mark.parametrize("which", logistic_mixture.PASSES)
@pytest.mark.parametrize("variant", ["eager", "compile", "fused"])
@pytest.mark.parametrize("dtype", logistic_mixture.DTYPES, ids=str)
@pytest.mark.parametrize(("batch", "size"), logistic_mixture.SHAPES)
def test_speed(benchmark, batch, size, dtype, variant, which):
    with one_thread():
        params, x = logistic_mixture.inputs(batch, size, dtype)
        logistic_mixture.check(params, x)
        nll = logistic_mixture.variants()[variant]
        benchmark(logistic_mixture.call_of(nll, params, x, which))


if __name__ == "__main__":
    main()
