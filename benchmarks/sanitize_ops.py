"""Each op once on small odd shapes, for compute-sanitizer to watch.

    PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer python benchmarks/sanitize_ops.py

Inputs are made on the host and copied, so that hardly any kernel runs but hvae's own, and memory
that counts as written was written by a copy or by them. The last line says that all calls ran.
"""

import argparse
import itertools
from dataclasses import replace

import torch

from hvae.testing import (
    OpCase,
    gaussian_latent_case,
    gaussian_sample_case,
    logistic_mixture_nll_case,
    logistic_mixture_sample_case,
)

LAYOUTS = ("contiguous", "channels_last")
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def cases() -> dict[str, list[OpCase]]:
    """Cases by op."""
    return {
        "gaussian_latent": [
            gaussian_latent_case(1, 1, (1, 1)),
            gaussian_latent_case(3, 5, (7, 9), width=3, residual=True),
            gaussian_latent_case(2, 17, (401,), std="log"),
            gaussian_latent_case(2, 6, (3, 5), given_noise=True, reduce="none"),
            gaussian_latent_case(2, 6, (3, 2, 5), reduce="channel_group", groups=3),
        ],
        "gaussian_sample": [
            gaussian_sample_case(1, 1, (1, 1)),
            gaussian_sample_case(3, 5, (7, 9), width=3, temperature=0.7),
            gaussian_sample_case(2, 17, (401,), std="log"),
        ],
        "logistic_mixture_nll": [
            logistic_mixture_nll_case(2, 3, (5, 7), mixtures=10),
            logistic_mixture_nll_case(1, 1, (131,), reduce="pixel"),
        ],
        "logistic_mixture_sample": [
            logistic_mixture_sample_case(2, 3, (5, 7), mixtures=10),
            logistic_mixture_sample_case(1, 1, (131,)),
        ],
    }


def has_kernel(name: str, device: str) -> bool:
    """Whether an op has a compiled kernel; torch's own kernels are not what is watched."""
    if not hasattr(torch.ops.hvae, name):
        return False
    has: bool = torch._C._dispatch_has_kernel_for_dispatch_key(f"hvae::{name}", device.upper())
    return has


def run(case: OpCase, dtype: torch.dtype, layout: str, device: str) -> None:
    """One call, with its backward where it has one; AssertionError on a value that is not finite.

    Values are compared with references elsewhere.
    """
    on_host = case.prepared(dtype, layout)
    inputs = {name: tensor.to(device) for name, tensor in on_host.inputs.items()}
    result = replace(on_host, inputs=inputs).run()
    for tensor in (*result.outputs, *result.gradients.values()):
        assert tensor.cpu().isfinite().all(), f"{case.label} {dtype} {layout}"


def main() -> None:
    parser = argparse.ArgumentParser(description="Call each op on small odd shapes")
    parser.add_argument("--device", default="cuda")
    device = parser.parse_args().device
    torch.manual_seed(0)
    calls = 0
    for name, of_op in cases().items():
        if not has_kernel(name, device):
            print(f"{name} has no kernel for {device}: left out")
            continue
        for case, dtype, layout in itertools.product(of_op, DTYPES, LAYOUTS):
            run(case, dtype, layout, device)
            calls += 1
    if not calls:
        raise SystemExit(f"no op has a kernel for {device}")
    print(f"all {calls} calls ran")


if __name__ == "__main__":
    main()
