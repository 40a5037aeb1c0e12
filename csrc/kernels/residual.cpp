#include "kernels/residual.h"

#include <algorithm>

#include "kernels/dispatch.h"
#include "kernels/simd.h"

namespace hvae {

namespace {

template <typename A>
HVAE_CLONES void add_values(int count, const A* __restrict a, const A* __restrict b,
                            A* __restrict sum) {
#pragma omp simd
  for (int i = 0; i < count; ++i) sum[i] = a[i] + b[i];
}

}  // namespace

void add_residual(const Tasks& tasks, const Task& task, const Input& x, const Input& p,
                  int64_t first_channel, const Output& y) {
  const Extent& extent = tasks.extent();
  const bool wide = x.dtype == DType::kFloat64 || p.dtype == DType::kFloat64;
  with_arithmetic(wide ? DType::kFloat64 : DType::kFloat32, [&](auto zero) {
    using A = decltype(zero);
    tasks.for_each_tile(task, [&](const Tile& tile) {
      TileBuffer<A> x_buffer, h_buffer, y_buffer;
      const A* x_values = load_tile(x, extent, tile, 0, x_buffer.values);
      const A* h_values = load_tile(p, extent, tile, first_channel, h_buffer.values);
      A* y_values = stage_tile(y, extent, tile, 0, y_buffer.values);
      add_values(tile.size(), x_values, h_values, y_values);
      store_tile(y, extent, tile, 0, y_values);
    });
  });
}

void copy_residual_grad(const Tasks& tasks, const Task& task, const Input& grad_y,
                        const Output& grad_p, int64_t first_channel) {
  const Extent& extent = tasks.extent();
  with_arithmetic(grad_p.dtype, [&](auto zero) {
    using A = decltype(zero);
    tasks.for_each_tile(task, [&](const Tile& tile) {
      TileBuffer<A> in_buffer, out_buffer;
      A* out = stage_tile(grad_p, extent, tile, first_channel, out_buffer.values);
      if (grad_y.data == nullptr) {
        std::fill_n(out, tile.size(), A{0});
      } else {
        std::copy_n(load_tile(grad_y, extent, tile, 0, in_buffer.values), tile.size(), out);
      }
      store_tile(grad_p, extent, tile, first_channel, out);
    });
  });
}

}  // namespace hvae
