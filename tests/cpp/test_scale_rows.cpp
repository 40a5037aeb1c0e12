// Rows times factors, of every storage type: one factor a row, and one an element.
#include <vector>

#include "expect.h"
#include "host_tensor.h"
#include "kernels/scale_rows.h"

namespace {

constexpr int64_t kRows = 6, kSharedBy = 3;

void check(hvae::DType dtype, int64_t length, bool each) {
  using test::HostTensor;
  const hvae::DType arithmetic = dtype == hvae::DType::kFloat64 ? dtype : hvae::DType::kFloat32;
  const auto dense = hvae::Layout::kChannelsFirst;
  HostTensor values(kRows, 1, length, dense, dtype, 0), scaled(kRows, 1, length, dense, dtype, 0);
  HostTensor factors(kRows, 1, each ? length : 1, dense, arithmetic, 0);
  values.fill(3, 1.0);
  factors.fill(5, 2.0);
  hvae::ScaleRowsParams params;
  params.rows = kRows;
  params.length = length;
  params.each = each;
  params.shared_by = each ? kSharedBy : 1;
  params.dtype = dtype;
  params.factors = factors.input().data;
  params.values = values.input().data;
  params.scaled = scaled.output().data;
  for (int64_t task = hvae::count_scale_rows_tasks(params); task-- > 0;) {
    hvae::launch_scale_rows_cpu(params, task, task + 1);
  }
  for (int64_t row = 0; row < kRows; ++row) {
    for (int64_t i = 0; i < length; ++i) {
      const double factor = each ? factors.at(row / kSharedBy, 0, i) : factors.at(row, 0, 0);
      const double wanted = values.at(row, 0, i) * factor;
      test::expect_near(scaled.at(row, 0, i), wanted, test::tolerance_of(dtype), "scaled");
    }
  }
}

}  // namespace

int main() {
  for (const hvae::DType dtype : {hvae::DType::kFloat32, hvae::DType::kFloat64,
                                  hvae::DType::kBFloat16, hvae::DType::kFloat16}) {
    for (const int64_t length : {1, 7, 4096, 5000}) {
      for (const bool each : {false, true}) check(dtype, length, each);
    }
  }
  return test::exit_code();
}
