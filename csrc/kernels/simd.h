// Which instruction set the CPU kernels run with.
#pragma once

// A function so marked is compiled once per x86-64 level and picked when the library is loaded, so
// that one binary serves all machines. Only what is inlined into it (HVAE_HD) follows the level.
#if defined(__x86_64__) && defined(__ELF__) && defined(__GNUC__) && !defined(__clang__)
#define HVAE_HAS_CLONES 1
#define HVAE_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
// One of several hand-written versions of a function, chosen in the same way.
#define HVAE_FOR_AVX512 __attribute__((target("arch=x86-64-v4")))
#define HVAE_FOR_AVX2 __attribute__((target("arch=x86-64-v3")))
#define HVAE_FOR_BASELINE __attribute__((target("default")))
#else
#define HVAE_HAS_CLONES 0
#define HVAE_CLONES
#define HVAE_FOR_BASELINE
#endif

namespace hvae {

// "avx512", "avx2" or "baseline": the clone that this machine runs.
const char* simd_level();

}  // namespace hvae
