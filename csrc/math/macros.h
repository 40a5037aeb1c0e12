// How a function of csrc/math/ is declared, so that g++, nvcc and the CUDA emulator share it.
#pragma once

#if defined(__CUDACC__)
#define HVAE_HD __host__ __device__ __forceinline__
#else
// Inlining must not be left to taste: a call in the hot loop would stop it from vectorising, and
// only an inlined body takes on the instruction set of the clone it sits in (kernels/simd.h).
#define HVAE_HD inline __attribute__((always_inline))
#endif
