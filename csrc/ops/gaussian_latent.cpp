#include "kernels/gaussian_latent.h"

#include "ops/launch.h"
#include "ops/noise.h"
#include "ops/ops.h"
#include "ops/tensors.h"

namespace hvae {

namespace {

// The inputs that forward and backward share, all readable in the layout of q.
struct Inputs {
  Inputs(const Tensor& q_given, const Tensor& p_given, const OptionalTensor& eps_given,
         const Tensor& rng_given, int64_t kl_groups)
      : layout(layout_of(q_given)),
        channels(check(q_given, p_given, kl_groups)),
        q(readable_in(q_given, layout)),
        p(readable_in(p_given, layout)),
        noise(q_given, channels, eps_given, rng_given, layout) {}

  void fill(GaussianLatentCommon& params, int64_t stream, int64_t std, double floor,
            int64_t kl_groups) const {
    params.latent = extent_of(q, channels, layout);
    params.residual_channels = p.size(1) - 2 * channels;
    params.groups = kl_groups;
    params.std = check_std(std);
    params.floor = floor;
    params.noise = noise.view(stream);
    params.q = input_view(q);
    params.p = input_view(p);
  }

  Layout layout;
  int64_t channels;
  Tensor q, p;
  NoiseTensors noise;

 private:
  static int64_t check(const Tensor& q, const Tensor& p, int64_t kl_groups) {
    check_dtype("q", q);
    check_buffer("q", q, 2);
    STD_TORCH_CHECK(q.size(1) % 2 == 0, "q must have 2C channels, got ", q.size(1));
    check_same_dtype("p", p, q.scalar_type());
    check_same_device("p", p, q);
    check_buffer("p", p, q.size(1));
    check_sizes("p", p, with_channels(sizes_of(q), p.size(1)));
    const int64_t channels = q.size(1) / 2;
    STD_TORCH_CHECK(kl_groups == 0 || (kl_groups > 0 && channels % kl_groups == 0),
                    "kl_groups must be 0 or divide the ", channels, " latent channels, got ",
                    kl_groups);
    return channels;
  }
};

ScalarType kl_dtype(const Tensor& q) {
  return q.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

Sizes kl_sizes(const Tensor& q, int64_t kl_groups) {
  if (kl_groups == 0) return with_channels(sizes_of(q), q.size(1) / 2);
  return {q.size(0), kl_groups};
}

Tensor empty_kl(const Inputs& in, int64_t kl_groups) {
  const Layout layout = kl_groups == 0 ? in.layout : Layout::kChannelsFirst;
  return empty_in(layout, kl_sizes(in.q, kl_groups), kl_dtype(in.q), in.q);
}

void check_like(const char* name, const Tensor& tensor, const Sizes& sizes, ScalarType dtype,
                const Tensor& q) {
  check_same_device(name, tensor, q);
  check_same_dtype(name, tensor, dtype);
  check_sizes(name, tensor, sizes);
}

void launch_forward(GaussianLatentParams& params, const Tensor& on) {
#ifdef HVAE_WITH_CUDA
  if (on.is_cuda()) {
    const Sizes count{count_gaussian_latent_partials_cuda(params)};
    const ScalarType dtype =
        params.kl.dtype == DType::kFloat64 ? ScalarType::Double : ScalarType::Float;
    const Tensor partials = empty_in(Layout::kChannelsFirst, count, dtype, on);
    params.partials = partials.mutable_data_ptr();
    return launch_on_stream(
        on, [&](void* stream) { return launch_gaussian_latent_cuda(params, stream); });
  }
#endif
  const Sizes count{count_gaussian_latent_partials_cpu(params)};
  const Tensor partials = empty_in(Layout::kChannelsFirst, count, ScalarType::Double, on);
  params.partials = partials.mutable_data_ptr();
  launch_on_threads(
      count_gaussian_latent_tasks(params), on.numel(),
      [&](int64_t begin, int64_t end) { launch_gaussian_latent_cpu(params, begin, end); });
  if (params.groups > 0) finish_gaussian_latent_cpu(params);
}

void launch_backward(const GaussianLatentBwdParams& params, const Tensor& on) {
#ifdef HVAE_WITH_CUDA
  if (on.is_cuda()) {
    return launch_on_stream(
        on, [&](void* stream) { return launch_gaussian_latent_bwd_cuda(params, stream); });
  }
#endif
  launch_on_threads(
      count_gaussian_latent_tasks(params), on.numel(),
      [&](int64_t begin, int64_t end) { launch_gaussian_latent_bwd_cpu(params, begin, end); });
}

}  // namespace

std::tuple<Tensor, Tensor, Tensor> gaussian_latent(const Tensor& q, const Tensor& p,
                                                   const OptionalTensor& x,
                                                   const OptionalTensor& eps, const Tensor& rng,
                                                   int64_t stream, int64_t std, double floor,
                                                   int64_t kl_groups) {
  const Inputs in(q, p, eps, rng, kl_groups);
  GaussianLatentParams params;
  in.fill(params, stream, std, floor, kl_groups);

  const Tensor z = empty_in(in.layout, with_channels(sizes_of(q), in.channels), q.scalar_type(), q);
  const Tensor kl = empty_kl(in, kl_groups);
  params.z = output_view(z);
  params.kl = output_view(kl);
  if (!x) {
    launch_forward(params, q);
    return {z, kl, empty_in(Layout::kChannelsFirst, {0}, q.scalar_type(), q)};
  }
  const Sizes residual = with_channels(sizes_of(q), params.residual_channels);
  check_dtype("x", *x);
  check_like("x", *x, residual, x->scalar_type(), q);
  const Tensor readable_x = readable_in(*x, in.layout);
  const Tensor y = empty_in(in.layout, residual, x->scalar_type(), q);
  params.x = input_view(readable_x);
  params.y = output_view(y);
  launch_forward(params, q);
  return {z, kl, dense_in(y, layout_of(*x))};
}

std::tuple<Tensor, Tensor> gaussian_latent_bwd(const OptionalTensor& grad_z,
                                               const OptionalTensor& grad_kl,
                                               const OptionalTensor& grad_y, const Tensor& q,
                                               const Tensor& p, const OptionalTensor& eps,
                                               const Tensor& rng, int64_t stream, int64_t std,
                                               double floor, int64_t kl_groups) {
  const Inputs in(q, p, eps, rng, kl_groups);
  GaussianLatentBwdParams params;
  in.fill(params, stream, std, floor, kl_groups);

  const Sizes latent = with_channels(sizes_of(q), in.channels);
  const Sizes residual = with_channels(sizes_of(q), params.residual_channels);
  if (grad_z) check_like("grad_z", *grad_z, latent, q.scalar_type(), q);
  if (grad_kl) check_like("grad_kl", *grad_kl, kl_sizes(q, kl_groups), kl_dtype(q), q);
  if (grad_y) {
    check_dtype("grad_y", *grad_y);
    check_like("grad_y", *grad_y, residual, grad_y->scalar_type(), q);
  }
  const OptionalTensor readable_z = readable_in(grad_z, in.layout);
  const OptionalTensor readable_y = readable_in(grad_y, in.layout);
  const OptionalTensor readable_kl =
      kl_groups == 0 || !grad_kl ? readable_in(grad_kl, in.layout)
                                 : OptionalTensor(dense_in(*grad_kl, Layout::kChannelsFirst));
  const Tensor grad_q = empty_in(in.layout, sizes_of(q), q.scalar_type(), q);
  const Tensor grad_p = empty_in(in.layout, sizes_of(p), p.scalar_type(), q);
  params.grad_z = input_view(readable_z);
  params.grad_kl = input_view(readable_kl);
  params.grad_y = input_view(readable_y);
  params.grad_q = output_view(grad_q);
  params.grad_p = output_view(grad_p);
  launch_backward(params, q);
  return {grad_q, dense_in(grad_p, layout_of(p))};
}

}  // namespace hvae
