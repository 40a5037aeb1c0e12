"""Speed and memory of the fused Gaussian latent op.

    python benchmarks/bench_gaussian_latent.py [--shape 32x16x64x64] [--save benchmarks/results]
    pytest benchmarks/bench_gaussian_latent.py          the same calls under pytest-benchmark

Prints a table, or refuses if the kernels are not loaded or the op fails its check.
"""

import pytest

from hvae.bench import gaussian_latent
from hvae.bench.case import DTYPES
from hvae.bench.measure import one_thread
from hvae.bench.script import main


@pytest.mark.parametrize("which", gaussian_latent.PASSES)
@pytest.mark.parametrize("variant", gaussian_latent.VARIANTS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", gaussian_latent.SHAPES, ids=str)
def test_speed(benchmark, shape, dtype, variant, which):
    with one_thread():
        q, p = gaussian_latent.parameters(shape, DTYPES[dtype])
        draws = gaussian_latent.draws("softplus")
        gaussian_latent.check(q, p, "softplus", draws)
        benchmark(gaussian_latent.call_of(draws[variant], q, p, which))


if __name__ == "__main__":
    main("gaussian_latent", ["gaussian_latent"])
