#include "ops/tensors.h"

#include <torch/headeronly/core/MemoryFormat.h>

namespace hvae {

namespace {

using torch::headeronly::MemoryFormat;

MemoryFormat format_of(Layout layout, int64_t dim) {
  if (layout == Layout::kChannelsFirst) return MemoryFormat::Contiguous;
  return dim == 4 ? MemoryFormat::ChannelsLast : MemoryFormat::ChannelsLast3d;
}

// Whether the dims from `first` on are dense in row-major order, the last with stride `step`.
// Strides of dims of size 1 mean nothing.
bool is_row_major(const Tensor& tensor, int64_t first, int64_t step) {
  for (int64_t dim = tensor.dim() - 1; dim >= first; --dim) {
    if (tensor.size(dim) == 1) continue;
    if (tensor.stride(dim) != step) return false;
    step *= tensor.size(dim);
  }
  return true;
}

// From one pixel to the next, by the innermost spatial dim that has more than one.
int64_t pixel_stride_of(const Tensor& tensor) {
  for (int64_t dim = tensor.dim() - 1; dim >= 2; --dim) {
    if (tensor.size(dim) != 1) return tensor.stride(dim);
  }
  return tensor.size(1);
}

bool is_readable_in(const Tensor& tensor, Layout layout) {
  if (tensor.numel() == 0) return true;
  if (layout == Layout::kChannelsFirst) return is_row_major(tensor, 1, 1);
  return (tensor.size(1) == 1 || tensor.stride(1) == 1) &&
         is_row_major(tensor, 2, pixel_stride_of(tensor));
}

bool is_dense_channels_last(const Tensor& tensor) {
  const int64_t pixels = tensor.numel() / (tensor.size(0) * tensor.size(1));
  return is_readable_in(tensor, Layout::kChannelsLast) &&
         pixel_stride_of(tensor) == tensor.size(1) &&
         (tensor.size(0) == 1 || tensor.stride(0) == pixels * tensor.size(1));
}

template <typename Pointer>
View<Pointer> view_of(const Tensor& tensor, Pointer data) {
  return {data, check_dtype("tensor", tensor), tensor.stride(0), pixel_stride_of(tensor)};
}

}  // namespace

Layout layout_of(const Tensor& tensor) {
  const bool has_format = tensor.dim() == 4 || tensor.dim() == 5;
  if (tensor.is_contiguous() || !has_format || tensor.numel() == 0) return Layout::kChannelsFirst;
  return is_dense_channels_last(tensor) ? Layout::kChannelsLast : Layout::kChannelsFirst;
}

Tensor dense_in(const Tensor& tensor, Layout layout) {
  return torch::stable::contiguous(tensor, format_of(layout, tensor.dim()));
}

Tensor readable_in(const Tensor& tensor, Layout layout) {
  return is_readable_in(tensor, layout) ? tensor : dense_in(tensor, layout);
}

OptionalTensor readable_in(const OptionalTensor& tensor, Layout layout) {
  return tensor ? OptionalTensor(readable_in(*tensor, layout)) : std::nullopt;
}

Tensor empty_in(Layout layout, const Sizes& sizes, ScalarType dtype, const Tensor& like) {
  const auto dim = static_cast<int64_t>(sizes.size());
  return torch::stable::empty(sizes, dtype, std::nullopt, like.device(), std::nullopt,
                              format_of(layout, dim));
}

Input input_view(const Tensor& tensor) { return view_of(tensor, tensor.const_data_ptr()); }

Input input_view(const OptionalTensor& tensor) { return tensor ? input_view(*tensor) : Input{}; }

Output output_view(const Tensor& tensor) { return view_of(tensor, tensor.mutable_data_ptr()); }

Extent extent_of(const Tensor& tensor, int64_t channels, Layout layout) {
  int64_t pixels = 1;
  for (int64_t dim = 2; dim < tensor.dim(); ++dim) pixels *= tensor.size(dim);
  return {tensor.size(0), channels, pixels, layout};
}

}  // namespace hvae
