// Rows of values times factors. CPU.
#pragma once

#include <cstdint>

#include "kernels/arguments.h"

namespace hvae {

// scaled[r][i] = values[r][i] * factor, where the factor is factors[r], or with `each` set
// factors[r / shared_by][i]. All are dense; factors are float, double for double.
struct ScaleRowsParams {
  int64_t rows = 0, length = 0;
  bool each = false;
  int64_t shared_by = 1;
  DType dtype = DType::kFloat32;
  const void* factors = nullptr;
  const void* values = nullptr;
  void* scaled = nullptr;
};

// Tasks are independent: which thread runs one does not change a bit of the result.
int64_t count_scale_rows_tasks(const ScaleRowsParams& params);
void launch_scale_rows_cpu(const ScaleRowsParams& params, int64_t begin, int64_t end);

}  // namespace hvae
