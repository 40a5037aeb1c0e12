// Tensors of the stable ABI to and from the kernels' views.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include "kernels/arguments.h"
#include "ops/check.h"

namespace hvae {

// The layout that a tensor's outputs follow: channels-last where it is dense in that, otherwise
// channels-first. The same rule as `layout_of` in hvae/ops/common.py.
Layout layout_of(const Tensor& tensor);

// `tensor` itself if the kernels can read it as `layout`, else a copy that they can. Strides
// between samples, and between pixels of channels-last tensors, are free.
Tensor readable_in(const Tensor& tensor, Layout layout);
OptionalTensor readable_in(const OptionalTensor& tensor, Layout layout);

// `tensor`, dense in `layout`: itself where it is so already.
Tensor dense_in(const Tensor& tensor, Layout layout);

Tensor empty_in(Layout layout, const Sizes& sizes, ScalarType dtype, const Tensor& like);

// Views of tensors that are readable in the launch's layout. An absent tensor gives a null view.
Input input_view(const Tensor& tensor);
Input input_view(const OptionalTensor& tensor);
Output output_view(const Tensor& tensor);

// The region (B, channels, N) of a tensor.
Extent extent_of(const Tensor& tensor, int64_t channels, Layout layout);

}  // namespace hvae
