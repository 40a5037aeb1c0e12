#include "ops/launch.h"

#ifdef HVAE_WITH_CUDA

#include <dlfcn.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>

namespace hvae {

namespace {

using GetStream = AOTITorchError (*)(int32_t device_index, void** stream);

// Looked up at run time, since a CPU-only torch lacks the symbol and linking it would make this
// library unloadable there; in the library itself, since torch loads its libraries RTLD_LOCAL.
GetStream find_get_stream() {
  void* library = dlopen("libtorch_cuda.so", RTLD_NOLOAD | RTLD_LAZY);
  if (library == nullptr) return nullptr;
  return reinterpret_cast<GetStream>(dlsym(library, "aoti_torch_get_current_cuda_stream"));
}

}  // namespace

void* current_cuda_stream(int32_t device_index) {
  static const GetStream get_stream = find_get_stream();
  STD_TORCH_CHECK(get_stream != nullptr, "this PyTorch has no CUDA");
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(get_stream(device_index, &stream));
  return stream;
}

}  // namespace hvae

#endif
