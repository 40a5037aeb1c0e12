"""Types of the compiled host module, `csrc/host/host.cpp`."""

def simd_level() -> str:
    """The clone of the CPU kernels that this machine runs: avx512, avx2 or baseline."""

def philox4x32(
    counter0: int, counter1: int, counter2: int, counter3: int, key0: int, key1: int
) -> tuple[int, int, int, int]:
    """One Philox4x32-10 block, as four 32-bit words."""

def philox_normal(
    seed: int, stream: int, sample: int, block: int
) -> tuple[float, float, float, float]:
    """Standard normals of elements 4 block .. 4 block + 3 of a sample, as the kernels draw them."""
