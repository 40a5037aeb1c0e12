// Sums that do not depend on how many threads took part.
//
// A sum is cut into chunks whose bounds follow from the sizes alone. Each chunk is summed by one
// worker in the arithmetic type, the chunks' results are added in order and in double.
#pragma once

#include <cstdint>

#include "math/macros.h"

namespace hvae {

// Elements per chunk: enough work to hide the bookkeeping, few enough for a float sum.
constexpr int64_t kChunk = 4096;

HVAE_HD int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// The sum of every `step`-th of `count` values from the `first` on; first 0 and step 1 take all.
template <typename T>
HVAE_HD double sum_in_order(const T* values, int64_t count, int64_t first = 0, int64_t step = 1) {
  double sum = 0;
  for (int64_t i = first; i < count; i += step) sum += static_cast<double>(values[i]);
  return sum;
}

}  // namespace hvae
