// The CPU kernels on tensors of more than 2^31 elements: their last tasks alone.
#include "large_case.h"

int main() {
  for (const test::Layout layout : {test::Layout::kChannelsFirst, test::Layout::kChannelsLast}) {
    test::check_large_latent(layout, [](const auto& forward, const auto& backward) {
      const int64_t tasks = hvae::count_gaussian_latent_tasks(forward);
      hvae::launch_gaussian_latent_cpu(forward, tasks - 1, tasks);
      const int64_t bwd_tasks = hvae::count_gaussian_latent_tasks(backward);
      hvae::launch_gaussian_latent_bwd_cpu(backward, bwd_tasks - 1, bwd_tasks);
    });
    test::check_large_mixture(layout, [](const auto& likelihood, const auto& draw) {
      const int64_t tasks = hvae::count_logistic_mixture_tasks(likelihood);
      hvae::launch_logistic_mixture_nll_cpu(likelihood, tasks - 1, tasks);
      hvae::launch_logistic_mixture_sample_cpu(draw, tasks - 1, tasks);
    });
  }
  return test::exit_code();
}
