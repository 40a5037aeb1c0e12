"""Both ops on one and on two threads, in wall time, so that only an idle machine tells anything.

pytest benchmarks/bench_threads.py --benchmark-group-by=func,param:op
"""

import pytest
import torch

from hvae.bench import gaussian_latent, logistic_mixture

DTYPE = torch.float32


def latent_pass():
    q, p = gaussian_latent.parameters(gaussian_latent.SHAPES[0], DTYPE)
    draw = gaussian_latent.draws("softplus")["fused"]
    return gaussian_latent.call_of(draw, q, p, "forward + backward")


def mixture_pass():
    params, x = logistic_mixture.inputs(logistic_mixture.SHAPES[0], DTYPE)
    nll = logistic_mixture.nlls()["fused"]
    return logistic_mixture.call_of(nll, params, x, "forward + backward")


def mixture_draw():
    params = logistic_mixture.inputs(logistic_mixture.SHAPES[0], DTYPE)[0].detach()
    sample = logistic_mixture.samplers(logistic_mixture.SHAPES[0][1])["fused"]
    return lambda: sample(params)


OPS = {
    "gaussian_latent": latent_pass,
    "logistic_mixture_nll": mixture_pass,
    "logistic_mixture_sample": mixture_draw,
}


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("op", OPS)
def test_speed(benchmark, op, threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        benchmark(OPS[op]())
    finally:
        torch.set_num_threads(before)
