// The CUDA kernels on tensors of more than 2^31 elements: the last block of each grid alone.
#define HVAE_EMULATE_CUDA
#include "cuda_emulator.h"
#include "large_case.h"

int main() {
  emulator::last_block_only = true;
  for (const test::Layout layout : {test::Layout::kChannelsFirst, test::Layout::kChannelsLast}) {
    test::check_large_latent(layout, [](const auto& forward, const auto& backward) {
      test::expect(hvae::launch_gaussian_latent_cuda(forward, nullptr) == 0, "launch");
      test::expect(hvae::launch_gaussian_latent_bwd_cuda(backward, nullptr) == 0, "launch");
    });
    test::check_large_mixture(layout, [](const auto& likelihood, const auto& draw) {
      test::expect(hvae::launch_logistic_mixture_nll_cuda(likelihood, nullptr) == 0, "launch");
      test::expect(hvae::launch_logistic_mixture_sample_cuda(draw, nullptr) == 0, "launch");
    });
  }
  return test::exit_code();
}
