"""`hvae info`: what was built, what runs, and why not what does not."""

from typing import Any

from hvae.cli.options import Json
from hvae.cli.output import print_result, table


def info(json: Json = False) -> None:
    """Show what is installed and compiled, and why what is not."""
    from hvae import _native

    record = {**_native.build_info(), "devices": _devices()}
    print_result(record, _text(record), as_json=json)


def _devices() -> list[str]:
    import torch

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return [*gpus, f"CPU, {torch.get_num_threads()} threads"]


def _text(record: dict[str, Any]) -> str:
    build = record["build"]
    rows = {
        "hvae": record["version"],
        "python": f"{record['python']} on {record['platform']}",
        "torch": f"{record['torch']} ({_cuda_of_torch(record['torch_cuda'])})",
        "devices": "; ".join(record["devices"]),
        "kernels": _kernels(record["kernels"]),
        "SIMD": record["simd"] or "unknown",
    }
    if build is None:
        return table({**rows, "build": "nothing is compiled"})
    return table(
        {
            **rows,
            "CUDA kernels": _cuda_kernels(build),
            "compiler": build["compiler"],
            "flags": build["flags"],
            "built with": f"torch {build['torch_version']}",
        }
    )


def _cuda_of_torch(version: str | None) -> str:
    return f"CUDA {version}" if version else "without CUDA"


def _kernels(status: dict[str, Any]) -> str:
    mode = f"HVAE_KERNELS={status['mode']}"
    if status["loaded"]:
        return f"loaded from {status['path']} ({mode})"
    return f"not loaded, the slower references run: {status['reason']} ({mode})"


def _cuda_kernels(build: dict[str, Any]) -> str:
    if not build["cuda_compiled"]:
        return f"not compiled: {build['cuda_reason']}"
    architectures = ", ".join(f"sm_{arch}" for arch in build["cuda_archs"])
    return f"compiled for {architectures} (nvcc {build['nvcc_version']})"
