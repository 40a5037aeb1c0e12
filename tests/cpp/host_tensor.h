// A (B, C, N) tensor in any layout and dtype, as the kernels' callers would have it.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "kernels/arguments.h"
#include "math/narrow.h"

namespace test {

using hvae::DType;
using hvae::Layout;

// A (B, C, N) tensor with room behind every sample and, in channels-last, behind every pixel.
class HostTensor {
 public:
  HostTensor() = default;
  HostTensor(int64_t batch, int64_t channels, int64_t pixels, Layout layout, DType dtype, int pad)
      : extent_{batch, channels, pixels, layout}, dtype_(dtype) {
    view_.dtype = dtype;
    view_.pixel_stride = channels + (layout == Layout::kChannelsLast ? pad : 0);
    view_.batch_stride = view_.pixel_stride * pixels + pad;
    values_.assign(static_cast<size_t>(view_.batch_stride * batch), 0);
    for (size_t i = 0; i < values_.size(); ++i) store(i, std::nan(""));  // unwritten must show
  }

  hvae::Input input() { return {values_.data(), dtype_, view_.batch_stride, view_.pixel_stride}; }
  hvae::Output output() { return {values_.data(), dtype_, view_.batch_stride, view_.pixel_stride}; }
  int64_t channels() const { return extent_.channels; }

  double at(int64_t b, int64_t c, int64_t s) const { return load(offset(b, c, s)); }
  void set(int64_t b, int64_t c, int64_t s, double value) { store(offset(b, c, s), value); }

  // Values that do not repeat, within `scale` of 0.
  void fill(uint32_t seed, double scale) {
    for_each([&](int64_t b, int64_t c, int64_t s) {
      seed = seed * 1664525u + 1013904223u;
      set(b, c, s, scale * ((seed >> 8) / 8388608.0 - 1));
    });
  }

  template <typename Visit>
  void for_each(Visit visit) const {
    for (int64_t b = 0; b < extent_.batch; ++b) {
      for (int64_t c = 0; c < extent_.channels; ++c) {
        for (int64_t s = 0; s < extent_.pixels; ++s) visit(b, c, s);
      }
    }
  }

  bool operator==(const HostTensor& other) const { return values_ == other.values_; }

 private:
  size_t offset(int64_t b, int64_t c, int64_t s) const {
    return static_cast<size_t>(hvae::offset_in(view_, extent_, b, c, s));
  }

  double load(size_t i) const {
    switch (dtype_) {
      case DType::kFloat64:
        return reinterpret_cast<const double*>(values_.data())[i];
      case DType::kBFloat16:
        return hvae::widen(reinterpret_cast<const hvae::BFloat16*>(values_.data())[i]);
      case DType::kFloat16:
        return hvae::widen(reinterpret_cast<const hvae::Float16*>(values_.data())[i]);
      default:
        return reinterpret_cast<const float*>(values_.data())[i];
    }
  }

  void store(size_t i, double value) {
    switch (dtype_) {
      case DType::kFloat64:
        reinterpret_cast<double*>(values_.data())[i] = value;
        return;
      case DType::kBFloat16:
        reinterpret_cast<hvae::BFloat16*>(values_.data())[i] = hvae::narrow<hvae::BFloat16>(value);
        return;
      case DType::kFloat16:
        reinterpret_cast<hvae::Float16*>(values_.data())[i] = hvae::narrow<hvae::Float16>(value);
        return;
      default:
        reinterpret_cast<float*>(values_.data())[i] = static_cast<float>(value);
    }
  }

  hvae::Extent extent_;
  DType dtype_ = DType::kFloat32;
  hvae::Input view_;
  std::vector<uint64_t> values_;  // 8 bytes an element, whatever its dtype: aligned, and no less
};

// Of one rounding of the stored dtype and the arithmetic before it.
inline double tolerance_of(DType dtype) {
  switch (dtype) {
    case DType::kFloat64:
      return 1e-12;
    case DType::kBFloat16:
      return 8e-3;
    case DType::kFloat16:
      return 1e-3;
    default:
      return 3e-6;
  }
}

}  // namespace test
