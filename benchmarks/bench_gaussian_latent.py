"""Speed and memory of the fused Gaussian latent op.

    python benchmarks/bench_gaussian_latent.py [--std log] [--size 64] [--save]
    pytest benchmarks/bench_gaussian_latent.py          the same calls under pytest-benchmark

Prints a table, or refuses if the kernels are not loaded or the op fails its check.
"""

import argparse
import sys
from pathlib import Path

import pytest

from hvae.bench import gaussian_latent, report
from hvae.bench.measure import one_thread
from hvae.errors import UserError

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    parser = argparse.ArgumentParser(description="Speed and memory of the fused Gaussian latent op")
    parser.add_argument(
        "--std", nargs="+", choices=gaussian_latent.STDS, default=gaussian_latent.STDS
    )
    parser.add_argument("--size", type=int, nargs="+", default=gaussian_latent.SIZES)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--save", action="store_true", help=f"write JSON and table to {RESULTS}")
    args = parser.parse_args()
    try:
        comparisons = list(gaussian_latent.run(args.size, stds=args.std, rounds=args.rounds))
    except (UserError, AssertionError) as error:
        sys.exit(f"no figures: {error}")
    table = report.markdown(comparisons)
    with one_thread():
        print(report.headline(report.machine()), table, sep="\n\n")
        if args.save:
            report.save("gaussian_latent", comparisons, table, RESULTS)


@pytest.mark.parametrize("which", gaussian_latent.PASSES)
@pytest.mark.parametrize("variant", gaussian_latent.VARIANTS)
@pytest.mark.parametrize("dtype", gaussian_latent.DTYPES, ids=str)
@pytest.mark.parametrize("size", gaussian_latent.SIZES)
def test_speed(benchmark, size, dtype, variant, which):
    with one_thread():
        gaussian_latent.check(size, dtype, "softplus")
        q, p = gaussian_latent.parameters(size, dtype)
        draw = gaussian_latent.draws("softplus")[variant]
        benchmark(gaussian_latent.call_of(draw, q, p, which))


if __name__ == "__main__":
    main()
