#include "kernels/logistic_mixture.h"

#include "ops/launch.h"
#include "ops/ops.h"
#include "ops/tensors.h"

namespace hvae {

namespace {

// The inputs that all of its ops share, readable in the layout of the parameters.
struct Inputs {
  Inputs(const Tensor& params_given, const Tensor& x_given, int64_t bits)
      : colours(check(params_given, x_given, bits)),
        layout(layout_of(params_given)),
        params(readable_in(params_given, layout)),
        x(dense_in(x_given, layout)) {}

  void fill(LogisticMixtureNllParams& launch, int64_t bits, bool per_pixel) const {
    launch.extent = extent_of(params, params.size(1), layout);
    launch.colours = colours;
    launch.mixtures = params.size(1) / parameters_per_component(colours);
    launch.bits = bits;
    launch.params = input_view(params);
    launch.x.data = x.const_data_ptr();
    launch.x.bytes = bytes_of_level(x.scalar_type());
    launch.x.batch_stride = colours * launch.extent.pixels;
    launch.x.pixel_stride = colours;
    launch.per_pixel = per_pixel;
  }

  Sizes nll_sizes(bool per_pixel) const {
    Sizes sizes = sizes_of(params);
    sizes.erase(sizes.begin() + 1);
    if (!per_pixel) sizes.resize(1);
    return sizes;
  }

  ScalarType nll_dtype() const {
    return params.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
  }

  Tensor empty_nll(bool per_pixel) const {
    return empty_in(Layout::kChannelsFirst, nll_sizes(per_pixel), nll_dtype(), params);
  }

  Tensor empty_grad() const {
    return empty_in(layout, sizes_of(params), params.scalar_type(), params);
  }

  int64_t colours;
  Layout layout;
  Tensor params, x;

 private:
  static int64_t parameters_per_component(int64_t colours) { return colours == 3 ? 10 : 3; }

  static int32_t bytes_of_level(ScalarType dtype) {
    switch (dtype) {
      case ScalarType::Byte:
        return 1;
      case ScalarType::Short:
        return 2;
      case ScalarType::Int:
        return 4;
      default:
        STD_TORCH_CHECK(false, "x must be uint8, int16 or int32, got ",
                        torch::headeronly::toString(dtype));
    }
  }

  static int64_t check(const Tensor& params, const Tensor& x, int64_t bits) {
    check_dtype("params", params);
    check_buffer("params", params, 1);
    check_same_device("x", x, params);
    bytes_of_level(x.scalar_type());
    STD_TORCH_CHECK(x.dim() == params.dim() && (x.size(1) == 1 || x.size(1) == 3),
                    "x must be (B, 1 or 3, *S), got ", to_string(sizes_of(x)));
    check_sizes("x", x, with_channels(sizes_of(params), x.size(1)));
    STD_TORCH_CHECK(params.size(1) % parameters_per_component(x.size(1)) == 0, "params must have ",
                    parameters_per_component(x.size(1)), " channels per component, got ",
                    params.size(1));
    STD_TORCH_CHECK(bits >= 1 && bits <= 16, "bits must be in [1, 16], got ", bits);
    return x.size(1);
  }
};

void launch(LogisticMixtureNllParams& params, const Tensor& on) {
  const bool summed = params.nll.data != nullptr && !params.per_pixel;
#ifdef HVAE_WITH_CUDA
  if (on.is_cuda()) {
    const Sizes count{summed ? count_logistic_mixture_partials_cuda(params) : 0};
    const ScalarType dtype =
        on.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
    const Tensor partials = empty_in(Layout::kChannelsFirst, count, dtype, on);
    params.partials = partials.mutable_data_ptr();
    return launch_on_stream(
        on, [&](void* stream) { return launch_logistic_mixture_nll_cuda(params, stream); });
  }
#endif
  const Sizes count{summed ? count_logistic_mixture_partials_cpu(params) : 0};
  const Tensor partials = empty_in(Layout::kChannelsFirst, count, ScalarType::Double, on);
  params.partials = partials.mutable_data_ptr();
  constexpr int64_t kElementsPerParameter = 4;  // its work, in elements of a latent group
  launch_on_threads(
      count_logistic_mixture_tasks(params), on.numel() * kElementsPerParameter,
      [&](int64_t begin, int64_t end) { launch_logistic_mixture_nll_cpu(params, begin, end); });
  if (summed) finish_logistic_mixture_nll_cpu(params);
}

}  // namespace

Tensor logistic_mixture_nll(const Tensor& params, const Tensor& x, int64_t bits, bool per_pixel) {
  const Inputs in(params, x, bits);
  LogisticMixtureNllParams args;
  in.fill(args, bits, per_pixel);
  const Tensor nll = in.empty_nll(per_pixel);
  args.nll.data = nll.mutable_data_ptr();
  launch(args, in.params);
  return nll;
}

Tensor logistic_mixture_nll_bwd(const Tensor& grad_nll, const Tensor& params, const Tensor& x,
                                int64_t bits, bool per_pixel) {
  const Inputs in(params, x, bits);
  LogisticMixtureNllParams args;
  in.fill(args, bits, per_pixel);
  check_same_device("grad", grad_nll, params);
  check_same_dtype("grad", grad_nll, in.nll_dtype());
  check_sizes("grad", grad_nll, in.nll_sizes(per_pixel));
  const Tensor dense = dense_in(grad_nll, Layout::kChannelsFirst), grad = in.empty_grad();
  args.grad_nll.data = dense.const_data_ptr();
  args.grad = output_view(grad);
  launch(args, in.params);
  return grad;
}

}  // namespace hvae
