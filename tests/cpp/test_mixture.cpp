// The CPU kernels of the logistic mixture against plain double loops.
#include <vector>

#include "mixture_case.h"

int main() {
  for (const test::MixtureCase& c : test::mixture_cases()) {
    test::MixtureProblem problem(c);
    hvae::LogisticMixtureNllParams params = problem.params(true, true);
    std::vector<double> partials(
        static_cast<size_t>(hvae::count_logistic_mixture_partials_cpu(params)));
    params.partials = partials.data();
    const int64_t tasks = hvae::count_logistic_mixture_tasks(params);
    for (int64_t task = tasks; task-- > 0;) {  // in any order
      hvae::launch_logistic_mixture_nll_cpu(params, task, task + 1);
    }
    if (!c.per_pixel) hvae::finish_logistic_mixture_nll_cpu(params);
    problem.check_nll();
    problem.check_gradient();

    const hvae::LogisticMixtureSampleParams sample = problem.sample_params();
    for (int64_t task = tasks; task-- > 0;) {
      hvae::launch_logistic_mixture_sample_cpu(sample, task, task + 1);
    }
    problem.check_levels();
  }
  return test::exit_code();
}
