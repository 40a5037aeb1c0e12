// hvae._host: what Python needs from C++ without tensors. The types stand in hvae/_host.pyi.
//
// A module of its own, because pybind11 clashes with the version pin of the stable ABI in csrc/ops.

#include <pybind11/pybind11.h>

#include <cstdint>
#include <tuple>

#include "kernels/simd.h"
#include "math/philox.h"

namespace {

using Words = std::tuple<uint32_t, uint32_t, uint32_t, uint32_t>;
using Normals = std::tuple<float, float, float, float>;

Words philox4x32(uint32_t counter0, uint32_t counter1, uint32_t counter2, uint32_t counter3,
                 uint32_t key0, uint32_t key1) {
  const hvae::Words words =
      hvae::philox4x32({counter0, counter1, counter2, counter3}, {key0, key1});
  return {words.x, words.y, words.z, words.w};
}

Normals philox_normal(int64_t seed, uint32_t stream, int64_t sample, uint32_t block) {
  const hvae::Counter counter = hvae::noise_counter(block, stream, sample);
  const hvae::Normals<float> n =
      hvae::normal4<float>(hvae::philox4x32(counter, hvae::noise_key(seed)));
  return {n.x, n.y, n.z, n.w};
}

}  // namespace

PYBIND11_MODULE(_host, m) {
  namespace py = pybind11;
  m.def("simd_level", &hvae::simd_level);
  m.def("philox4x32", &philox4x32, py::arg("counter0"), py::arg("counter1"), py::arg("counter2"),
        py::arg("counter3"), py::arg("key0"), py::arg("key1"));
  m.def("philox_normal", &philox_normal, py::arg("seed"), py::arg("stream"), py::arg("sample"),
        py::arg("block"));
}
