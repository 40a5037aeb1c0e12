// The CUDA kernels, compiled as C++ and run by cuda_emulator.h, against plain double loops.
#include <cstdint>
#include <vector>

#include "latent_case.h"

namespace {

using test::Case;
using test::Problem;

void test_latent(const Case& c, int absent) {
  Problem problem(c);
  hvae::GaussianLatentParams params = problem.forward_params();
  std::vector<double> partials(
      static_cast<size_t>(hvae::count_gaussian_latent_partials_cuda(params)));
  params.partials = partials.data();
  test::expect(hvae::launch_gaussian_latent_cuda(params, nullptr) == 0, c.name() + " launch");
  problem.check_forward();

  const bool with_z = absent != 1, with_kl = absent != 2, with_y = absent != 3;
  const hvae::GaussianLatentBwdParams backward = problem.backward_params(with_z, with_kl, with_y);
  test::expect(hvae::launch_gaussian_latent_bwd_cuda(backward, nullptr) == 0, c.name());
  problem.check_backward(with_z, with_kl, with_y);
}

void test_sample(const Case& c, double temperature) {
  Problem problem(c);
  hvae::GaussianSampleParams forward;
  problem.fill_noise_and_shape(forward);
  forward.temperature = temperature;
  forward.z = problem.z.output();
  test::expect(hvae::launch_gaussian_sample_cuda(forward, nullptr) == 0, c.name());
  problem.check_sample(temperature);

  hvae::GaussianSampleBwdParams backward;
  problem.fill_noise_and_shape(backward);
  backward.temperature = temperature;
  backward.grad_z = problem.grad_z.input();
  backward.grad_p = problem.grad_p.output();
  test::expect(hvae::launch_gaussian_sample_bwd_cuda(backward, nullptr) == 0, c.name());
  problem.check_sample_backward(temperature);
}

}  // namespace

int main() {
  int index = 0;
  for (const Case& c : test::all_cases(true)) {
    test_latent(c, index++ % 4);
    test_sample(c, 0.7);
  }
  return test::exit_code();
}
