"""Speed and memory of the fused logistic mixture: likelihood and sampling.

    python benchmarks/bench_logistic_mixture.py [--rounds 15] [--save benchmarks/results]
    pytest benchmarks/bench_logistic_mixture.py         the same calls under pytest-benchmark

Prints a table, or refuses if the kernels are not loaded or an op fails its check.
"""

import pytest

from hvae.bench import logistic_mixture
from hvae.bench.case import DTYPES
from hvae.bench.measure import one_thread
from hvae.bench.script import main

each_case = pytest.mark.parametrize("shape", logistic_mixture.SHAPES, ids=str)
each_dtype = pytest.mark.parametrize("dtype", DTYPES)
each_variant = pytest.mark.parametrize("variant", logistic_mixture.VARIANTS)


@pytest.mark.parametrize("which", logistic_mixture.PASSES)
@each_variant
@each_dtype
@each_case
def test_nll_speed(benchmark, shape, dtype, variant, which):
    with one_thread():
        params, x = logistic_mixture.inputs(shape, DTYPES[dtype])
        nlls = logistic_mixture.nlls()
        logistic_mixture.check_nll(params, x, nlls)
        benchmark(logistic_mixture.call_of(nlls[variant], params, x, which))


@each_variant
@each_dtype
@each_case
def test_sample_speed(benchmark, shape, dtype, variant):
    with one_thread():
        params = logistic_mixture.inputs(shape, DTYPES[dtype])[0].detach()
        logistic_mixture.check_sample(params, shape[1])
        benchmark(logistic_mixture.samplers(shape[1])[variant], params)


if __name__ == "__main__":
    main("logistic_mixture", ["logistic_mixture_nll", "logistic_mixture_sample"])
