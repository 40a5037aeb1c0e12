#include "kernels/simd.h"

namespace hvae {

namespace {

enum class Level { kBaseline, kAvx2, kAvx512 };

// Resolved by the same mechanism as the kernels' clones, so the answer cannot differ from theirs.
#if HVAE_HAS_CLONES
__attribute__((target("arch=x86-64-v4"))) Level level() { return Level::kAvx512; }
__attribute__((target("arch=x86-64-v3"))) Level level() { return Level::kAvx2; }
__attribute__((target("default"))) Level level() { return Level::kBaseline; }
#else
Level level() { return Level::kBaseline; }
#endif

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
