"""The machine code of the CUDA kernels: registers, spills, and 16 bytes per access to a tensor.

No GPU is needed. The limits were taken with nvcc 13.0.88; another nvcc is held to them as well.
"""

import importlib.metadata
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.cpp.cuda_code import Access, Kernel, compile_kernels, find_nvdisasm

CSRC = Path(__file__).parents[2] / "csrc"
SOURCES = sorted((CSRC / "kernels").glob("*.cu"))

# A family of kernels a line. `wide` is what vector kernels do with `bytes` at a time, and with
# fewer only where NARROW allows it; a second number is for the 16-bit types, of which a row of 4
# channels has 8 bytes. `registers` are the most that each storage type may take; most are steps at
# which an SM holds fewer blocks: of 256 threads 6 up to 40 registers, 5 up to 48, 4 up to 64, 3 up
# to 80, 2 up to 128, 1 up to 255.
LIMITS = """
                                                                   registers
source                  kernel           access wide          bytes float 16-bit double
gaussian_latent         forward_runs     vector loads,stores     16    64    128      -
gaussian_latent         forward_runs     scalar -                 -   128     80    255
gaussian_latent         forward_tiles    vector loads,stores   16,8    64     64      -
gaussian_latent         forward_tiles    scalar -                 -    64     64    128
gaussian_latent         backward_runs    vector loads,stores     16    80    128      -
gaussian_latent         backward_runs    scalar -                 -   128    128    255
gaussian_latent         backward_tiles   vector loads,stores   16,8    80     80      -
gaussian_latent         backward_tiles   scalar -                 -    64     64    128
gaussian_latent         add_partials     scalar -                 -    40      -     40
gaussian_sample         forward_runs     vector loads,stores     16    40     48      -
gaussian_sample         forward_runs     scalar -                 -    48     48     80
gaussian_sample         forward_tiles    vector loads,stores   16,8    48     48      -
gaussian_sample         forward_tiles    scalar -                 -    64     64     80
gaussian_sample         backward_runs    vector loads,stores     16    40     48      -
gaussian_sample         backward_runs    scalar -                 -    64     64     80
gaussian_sample         backward_tiles   vector loads,stores   16,8    48     48      -
gaussian_sample         backward_tiles   scalar -                 -    48     48     80
logistic_mixture        nll_blocks<1>    vector loads,stores     16    48     48      -
logistic_mixture        nll_blocks<1>    scalar -                 -    48     48    104
logistic_mixture        nll_blocks<3>    vector loads,stores     16    80     80      -
logistic_mixture        nll_blocks<3>    scalar -                 -    80     80    144
logistic_mixture        add_partials     scalar -                 -    40      -     40
logistic_mixture_sample sample_blocks<1> vector loads            16    40     40      -
logistic_mixture_sample sample_blocks<1> scalar -                 -    40     40     40
logistic_mixture_sample sample_blocks<3> vector loads            16    40     40      -
logistic_mixture_sample sample_blocks<3> scalar -                 -    40     40     48
"""

# Bytes that a kernel may spill: a patch of 4 x 4 doubles does not fit, and float64 is for checks.
SPILLS = {
    ("gaussian_latent", "forward_tiles<double>"): 128,
    ("gaussian_latent", "backward_tiles<double>"): 128,
}

# Statements whose accesses may be narrower in vector kernels, and why.
NARROW = {
    "noise.rng[": "the noise's seed and first sample",
    "(view.data)[index]": "the residual stream has a dtype and a width of its own",
    "store_row<false, A>(params.kl": "KL of each element: float whatever the dtype of z, and rare",
    "load_row<false, A>(params.grad_kl": "its gradient",
    "data[patch.sample * params.groups": "the gradient of a sum, one for many elements",
    "out[(task.sample": "one sum of many elements",
    "(params.partials)[blockIdx.x]": "one sum of many elements",
    "(params.nll.data)[place]": "nll of a pixel, beside tens of channels",
    "given[params.per_pixel": "its gradient",
    "(x.data)[index]": "the levels of a pixel, of any integer type",
    "params.levels[block.sample": "drawn levels of a pixel, beside tens of channels",
}


class Limit(NamedTuple):
    registers: int
    wide: tuple[str, ...] = ()  # kinds of access
    bytes: int = 0


Key = tuple[str, str, bool]  # source, kernel, is_vector
Rows = dict[Key, dict[str, Limit]]  # of each storage type


def parse(table: str) -> Rows:
    rows: Rows = {}
    for line in table.strip().splitlines()[2:]:
        source, name, access, wide, sizes, *registers = line.split()
        kinds = tuple(kind.rstrip("s") for kind in wide.split(",") if kind != "-")
        size, size16 = (2 * [int(size) for size in sizes.split(",")])[:2] if kinds else (0, 0)
        types = [("float", size), ("BFloat16", size16), ("Float16", size16), ("double", 0)]
        most = [registers[0], registers[1], registers[1], registers[2]]
        rows[source, name, access == "vector"] = {
            storage: Limit(int(count), kinds, num_bytes)
            for (storage, num_bytes), count in zip(types, most, strict=True)
            if count != "-"
        }
    return rows


def may_be_narrow(access: Access) -> bool:
    return any(fragment in line for fragment in NARROW for line in access.source())


def faults(source: str, kernel: Kernel, limit: Limit) -> Iterable[str]:
    if kernel.registers > limit.registers:
        yield f"{kernel.registers} registers, more than {limit.registers}"
    allowed_spill = SPILLS.get((source, str(kernel)), 0)
    if kernel.spill_bytes > allowed_spill:
        yield f"{kernel.spill_bytes} bytes spilled, more than {allowed_spill}"
    if not allowed_spill and (kernel.stack_bytes or kernel.local_accesses):
        yield f"{kernel.local_accesses} accesses to {kernel.stack_bytes} bytes of local memory"
    for access in kernel.accesses:
        if access.kind == "atomic":
            yield f"{access}: sums must have an order"
    if not kernel.is_vector:
        return
    to_tensors = Counter(access for access in kernel.accesses if not may_be_narrow(access))
    for access, count in to_tensors.items():
        if access.bytes < limit.bytes:
            yield f"{access}: {count} x a {access.kind} of {access.bytes} bytes, not {limit.bytes}"
    for kind in limit.wide:
        if not any(access.kind == kind and access.bytes >= limit.bytes for access in to_tensors):
            yield f"no {kind} of {limit.bytes} bytes"


def check(kernels: Mapping[str, list[Kernel]], rows: Rows) -> list[str]:
    """What is wrong with the kernels of each source, a line each."""
    missing = {
        (source, name, is_vector, storage)
        for (source, name, is_vector), limits in rows.items()
        for storage in limits
    }
    found = []
    for source, of_source in kernels.items():
        for kernel in of_source:
            limits = rows.get((source, kernel.name, kernel.is_vector), {})
            if kernel.storage not in limits:
                found.append(f"{source} {kernel}: not in the table")
                continue
            missing.discard((source, kernel.name, kernel.is_vector, kernel.storage))
            for fault in faults(source, kernel, limits[kernel.storage]):
                found.append(f"{source} {kernel}: {fault}")
    for source, name, is_vector, storage in sorted(missing):
        access = "vector" if is_vector else "scalar"
        found.append(f"{source} {name} {access} {storage}: in the table, but there is no such one")
    return found


@pytest.fixture(scope="module")
def nvcc(build: Mapping[str, Any]) -> list[str | Path]:
    """The command and flags that setup.py compiles with."""
    toolkit, reason = build["probe_cuda"]()
    if toolkit is None:
        pytest.skip(reason)
    cxx, _ = build["find_compiler"]()
    return [toolkit.nvcc, "-ccbin", cxx, *build["NVCC_FLAGS"]]


@pytest.fixture(scope="module")
def kernels(
    nvcc: list[str | Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, list[Kernel]]:
    folder = tmp_path_factory.mktemp("cubin")

    def compile_source(source: Path) -> list[Kernel]:
        return compile_kernels([*nvcc, f"-I{CSRC}"], source, folder / f"{source.stem}.cubin")

    with ThreadPoolExecutor(2) as pool:
        return dict(zip([s.stem for s in SOURCES], pool.map(compile_source, SOURCES), strict=True))


def test_machine_code_of_all_kernels(kernels: dict[str, list[Kernel]]) -> None:
    found = check(kernels, parse(LIMITS))
    assert not found, "\n".join(found)


def test_missing_nvdisasm_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "files", lambda name: [])
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(AssertionError, match=r"pip install -r requirements-dev\.txt"):
        find_nvdisasm()


def test_exceptions_are_all_needed(kernels: dict[str, list[Kernel]]) -> None:
    lines = {
        line
        for of_source in kernels.values()
        for kernel in of_source
        for access in kernel.accesses
        if kernel.is_vector
        for line in access.source()
    }
    assert [f for f in NARROW if not any(f in line for line in lines)] == []
    spilling = {(s, str(k)) for s, ks in kernels.items() for k in ks if k.spill_bytes}
    assert set(SPILLS) - spilling == set()


def test_table_and_code_name_the_same_kernels(kernels: dict[str, list[Kernel]]) -> None:
    shorter, longer = parse(LIMITS), parse(LIMITS)
    del shorter["gaussian_sample", "forward_runs", True]["float"]
    longer["gaussian_sample", "sideways_runs", False] = {"float": Limit(64)}
    assert check(kernels, shorter) == [
        "gaussian_sample forward_runs<float, vector>: not in the table"
    ]
    assert check(kernels, longer) == [
        "gaussian_sample sideways_runs scalar float: in the table, but there is no such one"
    ]


def plant_narrow_stores(csrc: Path) -> None:
    """Makes each 16-byte store a loop of 4-byte ones."""
    count = 0
    for path in (csrc / "kernels").glob("*.cu*"):
        planted, count_here = re.subn(
            r"__stcs\(reinterpret_cast<(\w+)\*>\((.+)\), (\w+)\);",
            r"""
            for (int word = 0; word < static_cast<int>(sizeof(\1) / 4); ++word) {
              reinterpret_cast<uint32_t*>(\2)[word] = reinterpret_cast<const uint32_t*>(&\3)[word];
            }""",
            path.read_text(),
        )
        path.write_text(planted)
        count += count_here
    assert count > 0, "found no store to replace"


@pytest.mark.parametrize(
    "source", ["logistic_mixture", pytest.param("gaussian_sample", marks=pytest.mark.slow)]
)
def test_planted_narrow_stores_are_found(
    source: str, nvcc: list[str | Path], tmp_path: Path
) -> None:
    csrc = Path(shutil.copytree(CSRC, tmp_path / "csrc"))
    plant_narrow_stores(csrc)
    path = csrc / "kernels" / f"{source}.cu"
    compiled = compile_kernels([*nvcc, f"-I{csrc}"], path, tmp_path / "planted.cubin")
    rows = {key: limits for key, limits in parse(LIMITS).items() if key[0] == source}
    found = check({source: compiled}, rows)
    for kernel in filter(lambda k: k.is_vector, compiled):
        own = [line for line in found if line.startswith(f"{source} {kernel}: ")]
        assert any("x a store of 4 bytes" in line for line in own), kernel
        assert any(": no store of" in line for line in own), kernel


BAD_KERNELS = """
// More values than 32 registers hold, all of them live.
template <typename S>
__global__ void __launch_bounds__(1024, 2) spills(S* x) {
  S values[64];
#pragma unroll
  for (int i = 0; i < 64; ++i) values[i] = x[i * 1024 + threadIdx.x];
  __syncthreads();
#pragma unroll
  for (int i = 0; i < 64; ++i) x[i * 1024 + threadIdx.x] = values[63 - i] * values[i];
}
// An array that is indexed at run time leaves the registers, though ptxas calls that no spill.
template <typename S>
__global__ void indexes(S* x, int at) {
  S values[32];
  for (int i = 0; i < 32; ++i) values[(i * at) % 32] = x[i];
  x[at] = values[at % 32];
}
template <typename S>
__global__ void adds(S* x) { atomicAdd(x, S{1}); }

template __global__ void spills<float>(float*);
template __global__ void indexes<float>(float*, int);
template __global__ void adds<float>(float*);
"""


@pytest.fixture(scope="module")
def bad_kernels(
    nvcc: list[str | Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, list[Kernel]]:
    folder = tmp_path_factory.mktemp("bad")
    (folder / "bad.cu").write_text(BAD_KERNELS)
    return {"bad": compile_kernels(nvcc, folder / "bad.cu", folder / "bad.cubin")}


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("spills", r"\d+ bytes spilled, more than 0"),
        ("spills", r"\d+ registers, more than 8"),
        ("indexes", r"[1-9]\d* accesses to 128 bytes of local memory"),
        ("adds", r"RED.* < bad.cu:\d+: sums must have an order"),
    ],
)
def test_bad_kernels_are_found(name: str, fault: str, bad_kernels: dict[str, list[Kernel]]) -> None:
    rows: Rows = {("bad", k.name, False): {"float": Limit(8)} for k in bad_kernels["bad"]}
    found = check(bad_kernels, rows)
    assert any(re.fullmatch(f"bad {name}<float>: {fault}", line) for line in found), found
