// The CPU kernels against plain double loops, and their independence of how tasks are shared out.
#include <cstdint>
#include <vector>

#include "latent_case.h"

namespace {

using test::Case;
using test::Problem;

// Runs tasks the way `order` says: 0 all at once, 1 one by one, 2 one by one from the last.
template <typename Launch>
void run_tasks(int64_t count, int order, Launch launch) {
  if (order == 0) return launch(0, count);
  for (int64_t i = 0; i < count; ++i) {
    const int64_t task = order == 1 ? i : count - 1 - i;
    launch(task, task + 1);
  }
}

void run_forward(Problem& problem, int order) {
  hvae::GaussianLatentParams params = problem.forward_params();
  std::vector<double> partials(
      static_cast<size_t>(hvae::count_gaussian_latent_partials_cpu(params)));
  params.partials = partials.data();
  run_tasks(hvae::count_gaussian_latent_tasks(params), order, [&](int64_t begin, int64_t end) {
    hvae::launch_gaussian_latent_cpu(params, begin, end);
  });
  if (params.groups > 0) hvae::finish_gaussian_latent_cpu(params);
}

void run_backward(Problem& problem, int order, bool with_z, bool with_kl, bool with_y) {
  const hvae::GaussianLatentBwdParams params = problem.backward_params(with_z, with_kl, with_y);
  run_tasks(hvae::count_gaussian_latent_tasks(params), order, [&](int64_t begin, int64_t end) {
    hvae::launch_gaussian_latent_bwd_cpu(params, begin, end);
  });
}

// `absent`: which of the gradients of z, kl and y is, 1 to 3.
void test_against_loops(const Case& c, int absent) {
  Problem problem(c);
  run_forward(problem, 0);
  problem.check_forward();
  run_backward(problem, 0, absent != 1, absent != 2, absent != 3);
  problem.check_backward(absent != 1, absent != 2, absent != 3);
}

void test_order_of_tasks(const Case& c) {
  Problem once(c);
  run_forward(once, 0);
  run_backward(once, 0, true, true, true);
  for (int order : {1, 2}) {
    Problem again(c);
    run_forward(again, order);
    run_backward(again, order, true, true, true);
    test::expect(once.z == again.z && once.kl == again.kl && once.y == again.y,
                 c.name() + ": forward depends on the order of tasks");
    test::expect(once.grad_q == again.grad_q && once.grad_p == again.grad_p,
                 c.name() + ": backward depends on the order of tasks");
  }
}

void test_sample(const Case& c) {
  for (double temperature : {0.0, 0.7}) {
    Problem problem(c);
    hvae::GaussianSampleParams forward;
    problem.fill_noise_and_shape(forward);
    forward.temperature = temperature;
    forward.z = problem.z.output();
    hvae::launch_gaussian_sample_cpu(forward, 0, hvae::count_gaussian_sample_tasks(forward));
    problem.check_sample(temperature);

    hvae::GaussianSampleBwdParams backward;
    problem.fill_noise_and_shape(backward);
    backward.temperature = temperature;
    backward.grad_z = problem.grad_z.input();
    backward.grad_p = problem.grad_p.output();
    hvae::launch_gaussian_sample_bwd_cpu(backward, 0, hvae::count_gaussian_sample_tasks(backward));
    problem.check_sample_backward(temperature);
  }
}

}  // namespace

int main() {
  int index = 0;
  for (const Case& c : test::all_cases(false)) {
    test_against_loops(c, index++ % 4);
    test_order_of_tasks(c);
    test_sample(c);
  }
  return test::exit_code();
}
