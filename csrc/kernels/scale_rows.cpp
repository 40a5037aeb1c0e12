#include "kernels/scale_rows.h"

#include <algorithm>

#include "kernels/dispatch.h"
#include "kernels/simd.h"
#include "math/narrow.h"
#include "math/reduce.h"

namespace hvae {

namespace {

template <typename S>
HVAE_CLONES void scale_by_one(int64_t count, Arithmetic<S> factor, const S* __restrict values,
                              S* __restrict scaled) {
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) scaled[i] = narrow<S>(widen(values[i]) * factor);
}

template <typename S>
HVAE_CLONES void scale_by_each(int64_t count, const Arithmetic<S>* __restrict factors,
                               const S* __restrict values, S* __restrict scaled) {
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) scaled[i] = narrow<S>(widen(values[i]) * factors[i]);
}

}  // namespace

int64_t count_scale_rows_tasks(const ScaleRowsParams& params) {
  return params.rows * ceil_div(params.length, kChunk);
}

void launch_scale_rows_cpu(const ScaleRowsParams& params, int64_t begin, int64_t end) {
  const int64_t chunks = ceil_div(params.length, kChunk);
  with_storage(params.dtype, [&](auto zero) {
    using S = decltype(zero);
    const auto* factors = static_cast<const Arithmetic<S>*>(params.factors);
    for (int64_t task = begin; task < end; ++task) {
      const int64_t row = task / chunks, first = task % chunks * kChunk;
      const int64_t count = std::min(kChunk, params.length - first);
      const S* values = static_cast<const S*>(params.values) + row * params.length + first;
      S* scaled = static_cast<S*>(params.scaled) + row * params.length + first;
      if (params.each) {
        const int64_t factor_row = row / params.shared_by;
        scale_by_each(count, factors + factor_row * params.length + first, values, scaled);
      } else {
        scale_by_one(count, factors[row], values, scaled);
      }
    }
  });
}

}  // namespace hvae
