#include "kernels/gaussian_sample.h"

#include "ops/launch.h"
#include "ops/noise.h"
#include "ops/ops.h"
#include "ops/tensors.h"

namespace hvae {

namespace {

// The inputs that forward and backward share, readable in the layout of p.
struct Inputs {
  Inputs(const Tensor& p_given, const OptionalTensor& eps_given, const Tensor& rng_given,
         int64_t z_channels)
      : layout(layout_of(p_given)),
        channels(check(p_given, z_channels)),
        p(readable_in(p_given, layout)),
        noise(p_given, channels, eps_given, rng_given, layout) {}

  void fill(GaussianSampleCommon& params, int64_t stream, int64_t std, double floor,
            double temperature) const {
    params.latent = extent_of(p, channels, layout);
    params.residual_channels = p.size(1) - 2 * channels;
    params.std = check_std(std);
    params.floor = floor;
    params.temperature = temperature;
    params.noise = noise.view(stream);
    params.p = input_view(p);
  }

  Layout layout;
  int64_t channels;
  Tensor p;
  NoiseTensors noise;

 private:
  static int64_t check(const Tensor& p, int64_t z_channels) {
    check_dtype("p", p);
    STD_TORCH_CHECK(z_channels >= 1, "z_channels must be 1 or more, got ", z_channels);
    check_buffer("p", p, 2 * z_channels);
    return z_channels;
  }
};

}  // namespace

Tensor gaussian_sample(const Tensor& p, const OptionalTensor& eps, const Tensor& rng,
                       int64_t stream, int64_t z_channels, int64_t std, double floor,
                       double temperature) {
  const Inputs in(p, eps, rng, z_channels);
  GaussianSampleParams params;
  in.fill(params, stream, std, floor, temperature);

  const Tensor z = empty_in(in.layout, with_channels(sizes_of(p), z_channels), p.scalar_type(), p);
  params.z = output_view(z);
#ifdef HVAE_WITH_CUDA
  if (p.is_cuda()) {
    launch_on_stream(p, [&](void* s) { return launch_gaussian_sample_cuda(params, s); });
    return z;
  }
#endif
  launch_on_threads(
      count_gaussian_sample_tasks(params), z.numel(),
      [&](int64_t begin, int64_t end) { launch_gaussian_sample_cpu(params, begin, end); });
  return z;
}

Tensor gaussian_sample_bwd(const Tensor& grad_z, const Tensor& p, const OptionalTensor& eps,
                           const Tensor& rng, int64_t stream, int64_t z_channels, int64_t std,
                           double floor, double temperature) {
  const Inputs in(p, eps, rng, z_channels);
  GaussianSampleBwdParams params;
  in.fill(params, stream, std, floor, temperature);

  check_same_device("grad_z", grad_z, p);
  check_same_dtype("grad_z", grad_z, p.scalar_type());
  check_sizes("grad_z", grad_z, with_channels(sizes_of(p), z_channels));
  const Tensor readable_z = readable_in(grad_z, in.layout);
  const Tensor grad_p = empty_in(in.layout, sizes_of(p), p.scalar_type(), p);
  params.grad_z = input_view(readable_z);
  params.grad_p = output_view(grad_p);
#ifdef HVAE_WITH_CUDA
  if (p.is_cuda()) {
    launch_on_stream(p, [&](void* s) { return launch_gaussian_sample_bwd_cuda(params, s); });
    return grad_p;
  }
#endif
  launch_on_threads(
      count_gaussian_sample_tasks(params), p.numel(),
      [&](int64_t begin, int64_t end) { launch_gaussian_sample_bwd_cpu(params, begin, end); });
  return grad_p;
}

}  // namespace hvae
