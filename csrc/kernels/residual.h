// The residual stream beside a latent: y = x + h, where h are the last channels of p. CPU.
#pragma once

#include <cstdint>

#include "kernels/arguments.h"
#include "kernels/tile.h"

namespace hvae {

// The tasks over the (B, W, N) residual beside a (B, C, N) latent.
inline Tasks residual_tasks(Extent latent, int64_t residual_channels) {
  latent.channels = residual_channels;
  return {latent, 1};
}

// One task of y = x + h. `first_channel` is where h begins in p.
void add_residual(const Tasks& tasks, const Task& task, const Input& x, const Input& p,
                  int64_t first_channel, const Output& y);

// One task of dh = dy, written into the same channels of dp; zero where grad_y is absent.
void copy_residual_grad(const Tasks& tasks, const Task& task, const Input& grad_y,
                        const Output& grad_p, int64_t first_channel);

}  // namespace hvae
