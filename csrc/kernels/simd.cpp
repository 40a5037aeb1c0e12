#include "kernels/simd.h"

namespace hvae {

namespace {

enum class Level { kBaseline, kAvx2, kAvx512 };

// Resolved by the same mechanism as the kernels' clones, so the answer cannot differ from theirs.
#if HVAE_HAS_CLONES
HVAE_FOR_AVX512 Level level() { return Level::kAvx512; }
HVAE_FOR_AVX2 Level level() { return Level::kAvx2; }
#endif
HVAE_FOR_BASELINE Level level() { return Level::kBaseline; }

}  // namespace

const char* simd_level() {
  switch (level()) {
    case Level::kAvx512:
      return "avx512";
    case Level::kAvx2:
      return "avx2";
    default:
      return "baseline";
  }
}

}  // namespace hvae
