// From options known at run time to template arguments.
#pragma once

#include <type_traits>

#include "kernels/arguments.h"
#include "math/gaussian.h"
#include "math/narrow.h"

namespace hvae {

// Calls use(value), and returns its result, with a value of the type that `dtype` stores.
template <typename Use>
auto with_storage(DType dtype, Use use) {
  switch (dtype) {
    case DType::kFloat64:
      return use(double{});
    case DType::kBFloat16:
      return use(BFloat16{});
    case DType::kFloat16:
      return use(Float16{});
    default:
      return use(float{});
  }
}

// Calls use(value), and returns its result, with a value of the type that `dtype` is computed in.
template <typename Use>
auto with_arithmetic(DType dtype, Use use) {
  return dtype == DType::kFloat64 ? use(double{}) : use(float{});
}

// Calls use(constant, value): the colours, 1 or 3, as a compile-time constant, and a value of the
// type that `dtype` is computed in.
template <typename Use>
auto with_colours(int64_t colours, DType dtype, Use use) {
  return with_arithmetic(dtype, [&](auto value) {
    if (colours == 3) return use(std::integral_constant<int, 3>{}, value);
    return use(std::integral_constant<int, 1>{}, value);
  });
}

// Calls use(constant) with the form as a compile-time constant.
template <typename Use>
auto with_form(StdForm form, Use use) {
  if (form == StdForm::kLog) return use(std::integral_constant<StdForm, StdForm::kLog>{});
  return use(std::integral_constant<StdForm, StdForm::kSoftplus>{});
}

// Both: calls use(constant, value).
template <typename Use>
auto with_variant(StdForm form, DType dtype, Use use) {
  return with_form(form, [&](auto constant) {
    return with_arithmetic(dtype, [&](auto value) { return use(constant, value); });
  });
}

}  // namespace hvae
