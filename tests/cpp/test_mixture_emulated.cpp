// The CUDA kernels of the logistic mixture, compiled as C++ and run by cuda_emulator.h.
#include <vector>

#include "mixture_case.h"

int main() {
  for (const test::MixtureCase& c : test::mixture_cases()) {
    test::MixtureProblem problem(c);
    for (const bool gradient : {false, true}) {
      hvae::LogisticMixtureNllParams params = problem.params(!gradient, gradient);
      std::vector<double> partials(
          static_cast<size_t>(hvae::count_logistic_mixture_partials_cuda(params)));
      params.partials = partials.data();
      test::expect(hvae::launch_logistic_mixture_nll_cuda(params, nullptr) == 0,
                   c.name() + " launch");
    }
    problem.check_nll();
    problem.check_gradient();
    test::expect(hvae::launch_logistic_mixture_sample_cuda(problem.sample_params(), nullptr) == 0,
                 c.name() + " launch of the draw");
    problem.check_levels();
  }
  return test::exit_code();
}
