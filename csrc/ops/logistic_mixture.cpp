#include "kernels/logistic_mixture.h"

#include "kernels/scale_rows.h"
#include "ops/launch.h"
#include "ops/noise.h"
#include "ops/ops.h"
#include "ops/tensors.h"

namespace hvae {

namespace {

constexpr int64_t kWorkPerParameter = 4;  // in elements of a latent group

int64_t parameters_per_component(int64_t colours) { return colours == 3 ? 10 : 3; }

// Of the nll: (B,), or (B, *S) per pixel.
Sizes nll_sizes(const Tensor& params, bool per_pixel) {
  Sizes sizes = sizes_of(params);
  sizes.erase(sizes.begin() + 1);
  if (!per_pixel) sizes.resize(1);
  return sizes;
}

ScalarType nll_dtype(const Tensor& params) {
  return params.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

// The parameters, readable in their layout, of a mixture over 1 or 3 colours.
struct Parameters {
  Parameters(const Tensor& given, int64_t colours_given, int64_t bits_given)
      : colours(check(given, colours_given, bits_given)),
        bits(bits_given),
        layout(layout_of(given)),
        params(readable_in(given, layout)) {}

  void fill(LogisticMixtureCommon& launch) const {
    launch.extent = extent_of(params, params.size(1), layout);
    launch.colours = colours;
    launch.mixtures = params.size(1) / parameters_per_component(colours);
    launch.bits = bits;
    launch.params = input_view(params);
  }

  int64_t colours, bits;
  Layout layout;
  Tensor params;

 private:
  static int64_t check(const Tensor& params, int64_t colours, int64_t bits) {
    check_dtype("params", params);
    check_buffer("params", params, 1);
    STD_TORCH_CHECK(colours == 1 || colours == 3, "there must be 1 or 3 colours, got ", colours);
    const int64_t each = parameters_per_component(colours);
    STD_TORCH_CHECK(params.size(1) % each == 0, "params must have ", each,
                    " channels per component, got ", params.size(1));
    STD_TORCH_CHECK(bits >= 1 && bits <= 16, "bits must be in [1, 16], got ", bits);
    return colours;
  }
};

// What the ops of the likelihood share besides: the levels, in the layout of the parameters.
struct Inputs : Parameters {
  Inputs(const Tensor& params_given, const Tensor& x_given, int64_t bits_given)
      : Parameters(params_given, check(params_given, x_given), bits_given),
        x(dense_in(x_given, layout)) {}

  void fill(LogisticMixtureNllParams& launch, bool per_pixel) const {
    Parameters::fill(launch);
    launch.x.data = x.const_data_ptr();
    launch.x.bytes = bytes_of_level(x.scalar_type());
    launch.x.batch_stride = colours * launch.extent.pixels;
    launch.x.pixel_stride = colours;
    launch.per_pixel = per_pixel;
  }

  Tensor empty_nll(bool per_pixel) const {
    return empty_in(Layout::kChannelsFirst, nll_sizes(params, per_pixel), nll_dtype(params),
                    params);
  }

  Tensor empty_grad() const {
    return empty_in(layout, sizes_of(params), params.scalar_type(), params);
  }

  Tensor x;

 private:
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

  static int64_t check(const Tensor& params, const Tensor& x) {
    check_same_device("x", x, params);
    bytes_of_level(x.scalar_type());
    STD_TORCH_CHECK(x.dim() == params.dim() && x.dim() >= 2, "x must be (B, 1 or 3, *S), got ",
                    to_string(sizes_of(x)));
    check_sizes("x", x, with_channels(sizes_of(params), x.size(1)));
    return x.size(1);
  }
};

void launch(LogisticMixtureNllParams& params, const Tensor& on) {
  const bool summed = params.nll.data != nullptr && !params.per_pixel;
#ifdef HVAE_WITH_CUDA
  if (on.is_cuda()) {
    const Sizes count{summed ? count_logistic_mixture_partials_cuda(params) : 0};
    const Tensor partials = empty_in(Layout::kChannelsFirst, count, nll_dtype(on), on);
    params.partials = partials.mutable_data_ptr();
    return launch_on_stream(
        on, [&](void* stream) { return launch_logistic_mixture_nll_cuda(params, stream); });
  }
#endif
  const Sizes count{summed ? count_logistic_mixture_partials_cpu(params) : 0};
  const Tensor partials = empty_in(Layout::kChannelsFirst, count, ScalarType::Double, on);
  params.partials = partials.mutable_data_ptr();
  launch_on_threads(
      count_logistic_mixture_tasks(params), on.numel() * kWorkPerParameter,
      [&](int64_t begin, int64_t end) { launch_logistic_mixture_nll_cpu(params, begin, end); });
  if (summed) finish_logistic_mixture_nll_cpu(params);
}

}  // namespace

Tensor logistic_mixture_nll(const Tensor& params, const Tensor& x, int64_t bits, bool per_pixel) {
  const Inputs in(params, x, bits);
  LogisticMixtureNllParams args;
  in.fill(args, per_pixel);
  const Tensor nll = in.empty_nll(per_pixel);
  args.nll.data = nll.mutable_data_ptr();
  launch(args, in.params);
  return nll;
}

std::tuple<Tensor, Tensor> logistic_mixture_nll_grad(const Tensor& params, const Tensor& x,
                                                     int64_t bits, bool per_pixel) {
  const Inputs in(params, x, bits);
  LogisticMixtureNllParams args;
  in.fill(args, per_pixel);
  const Tensor nll = in.empty_nll(per_pixel), grad = in.empty_grad();
  args.nll.data = nll.mutable_data_ptr();
  args.grad = output_view(grad);
  launch(args, in.params);
  return {nll, grad};
}

Tensor logistic_mixture_nll_grad_bwd(const Tensor& grad_nll, const Tensor& grad, const Tensor&) {
  check_buffer("grad", grad, 1);
  const Layout layout = layout_of(grad);
  const Tensor values = dense_in(grad, layout);
  const Extent extent = extent_of(values, values.size(1), layout);
  const bool per_pixel = grad_nll.dim() > 1;
  check_same_device("grad_nll", grad_nll, grad);
  check_same_dtype("grad_nll", grad_nll, nll_dtype(grad));
  check_sizes("grad_nll", grad_nll, nll_sizes(grad, per_pixel));
  ScaleRowsParams args;
  args.dtype = check_dtype("grad", grad);
  const Tensor factors = dense_in(grad_nll, Layout::kChannelsFirst);
  const Tensor scaled = empty_in(layout, sizes_of(grad), grad.scalar_type(), grad);
  if (!per_pixel) {
    args.rows = extent.batch;
    args.length = extent.channels * extent.pixels;
  } else if (layout == Layout::kChannelsFirst) {
    args.rows = extent.batch * extent.channels;
    args.length = extent.pixels;
    args.each = true;
    args.shared_by = extent.channels;
  } else {
    args.rows = extent.batch * extent.pixels;
    args.length = extent.channels;
  }
  args.factors = factors.const_data_ptr();
  args.values = values.const_data_ptr();
  args.scaled = scaled.mutable_data_ptr();
  launch_on_threads(count_scale_rows_tasks(args), scaled.numel(),
                    [&](int64_t begin, int64_t end) { launch_scale_rows_cpu(args, begin, end); });
  return scaled;
}

Tensor logistic_mixture_nll_bwd(const Tensor& grad_nll, const Tensor& params, const Tensor& x,
                                int64_t bits, bool per_pixel) {
  const Inputs in(params, x, bits);
  LogisticMixtureNllParams args;
  in.fill(args, per_pixel);
  check_same_device("grad", grad_nll, params);
  check_same_dtype("grad", grad_nll, nll_dtype(params));
  check_sizes("grad", grad_nll, nll_sizes(params, per_pixel));
  const Tensor dense = dense_in(grad_nll, Layout::kChannelsFirst), grad = in.empty_grad();
  args.grad_nll.data = dense.const_data_ptr();
  args.grad = output_view(grad);
  launch(args, in.params);
  return grad;
}

Tensor logistic_mixture_sample(const Tensor& params, const Tensor& rng, int64_t stream,
                               int64_t colours, int64_t bits, double temperature) {
  const Parameters in(params, colours, bits);
  LogisticMixtureSampleParams args;
  in.fill(args);
  STD_TORCH_CHECK(args.extent.pixels <= int64_t{1} << 32, "a sample may have 2**32 pixels at most");
  const NoiseTensors noise(params, 1, OptionalTensor(), rng, in.layout);
  args.noise = noise.view(stream);
  args.temperature = temperature;
  const Tensor levels =
      empty_in(in.layout, with_channels(sizes_of(params), colours), ScalarType::Int, params);
  args.levels = static_cast<int32_t*>(levels.mutable_data_ptr());
#ifdef HVAE_WITH_CUDA
  if (params.is_cuda()) {
    launch_on_stream(params, [&](void* s) { return launch_logistic_mixture_sample_cuda(args, s); });
    return levels;
  }
#endif
  launch_on_threads(
      count_logistic_mixture_tasks(args), in.params.numel(),
      [&](int64_t begin, int64_t end) { launch_logistic_mixture_sample_cpu(args, begin, end); });
  return levels;
}

}  // namespace hvae
