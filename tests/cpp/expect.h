// Checks for the C++ tests: print what failed and where, count on, and exit with 1 in the end.
#pragma once

#include <cmath>
#include <cstdio>
#include <string>

namespace test {

inline int failures = 0;

inline void expect(bool condition, const std::string& what) {
  if (condition) return;
  ++failures;
  if (failures <= 20) std::printf("FAILED: %s\n", what.c_str());
}

// |value - wanted| <= tolerance (1 + |wanted|); equal infinities, and NaN for NaN, are near.
inline bool is_near(double value, double wanted, double tolerance) {
  if (std::isnan(wanted) || std::isnan(value)) return std::isnan(wanted) && std::isnan(value);
  if (std::isinf(wanted) || std::isinf(value)) return value == wanted;
  return std::fabs(value - wanted) <= tolerance * (1 + std::fabs(wanted));
}

inline void expect_near(double value, double wanted, double tolerance, const std::string& what) {
  if (is_near(value, wanted, tolerance)) return;
  expect(false, what + ": got " + std::to_string(value) + ", wanted " + std::to_string(wanted));
}

inline int exit_code() {
  if (failures > 0) std::printf("%d checks failed\n", failures);
  return failures > 0 ? 1 : 0;
}

}  // namespace test
