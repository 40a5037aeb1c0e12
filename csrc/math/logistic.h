// One colour of one component of a discretised logistic mixture: the mass of a level, its slopes.
//
//   a = (t - mu + delta) / s     b = (t - mu - delta) / s     D = 2 delta / s
//   ln P = ln sigmoid(a) + ln sigmoid(-b) + ln(1 - e^-D)
//
// At the first level the first term stands alone, at the last level the second. Salimans et al.,
// arXiv:1701.05517, with the mass of a level written so that it needs no threshold: it is a
// quotient of numbers of moderate size for every finite input, and sums to 1 over the levels.
// T is float or double.
#pragma once

#include <cstdint>

#include "math/elementary.h"
#include "math/macros.h"

namespace hvae {

// Where a level stands among the L: the outer two take the tails.
struct Edge {
  bool first, last;
};

// e^-|a|, e^-|b| and e^-D, which mass and slopes share.
template <typename T>
struct Decays {
  T a, b, width;
};

// ln P = linear + ln(n / d), with n in [0.39, 1] and d in [1, 4].
template <typename T>
struct LogMass {
  T linear, n, d;
};

// Of -ln P: its derivative in mu times s, and in ln s.
template <typename T>
struct MassSlopes {
  T mean, log_scale;
};

// e^-|x|. The product costs the relative accuracy of results far below 1, which are only ever
// added to something near it.
template <typename T>
HVAE_HD T exp_minus_abs(T x) {
  return exp2_minus_abs(x * static_cast<T>(1.4426950408889634));
}

// Below this width 1 - e^-D cancels, and is D times a series instead.
template <typename T>
HVAE_HD bool is_narrow(T width) {
  return width < static_cast<T>(0.5);
}

// (1 - e^-D) / D on D < 1/2, relative error 2e-9 before rounding.
HVAE_HD float narrow_mass(float width) {
  const float w2 = width * width;
  const float even = 1.0f + (1.666628875e-1f + 8.193294608e-3f * w2) * w2;
  const float odd = -4.999998647e-1f + (-4.163204811e-2f - 1.125922038e-3f * w2) * w2;
  return even + odd * width;
}

HVAE_HD double narrow_mass(double width) { return width == 0 ? 1 : -::expm1(-width) / width; }

template <typename T>
HVAE_HD LogMass<T> log_mass(T a, T b, T width, T log_scale, T log_two_delta, Decays<T> decay,
                            Edge edge) {
  const bool inside = !edge.first && !edge.last, narrow = is_narrow(width);
  const T lower = a < 0 ? a : 0, upper = b > 0 ? -b : 0;
  const T shrink = inside && narrow ? log_two_delta - log_scale : 0;
  const T n = narrow ? narrow_mass(width) : 1 - decay.width;
  const T from_a = edge.last ? 0 : decay.a, from_b = edge.first ? 0 : decay.b;
  return {(edge.last ? 0 : lower) + (edge.first ? 0 : upper) + shrink, inside ? n : 1,
          (1 + from_a) * (1 + from_b)};
}

template <typename T>
HVAE_HD MassSlopes<T> mass_slopes(T a, T b, T width, Decays<T> decay, Edge edge) {
  const bool inside = !edge.first && !edge.last, narrow = is_narrow(width);
  const T n = narrow ? narrow_mass(width) : 1 - decay.width;
  const T below = 1 + decay.a, above = 1 + decay.b;
  const T quotient = 1 / (below * above * n);
  const T beyond = edge.last ? 0 : (a < 0 ? 1 : decay.a) * above * n * quotient;   // sigmoid(-a)
  const T before = edge.first ? 0 : (b > 0 ? 1 : decay.b) * below * n * quotient;  // sigmoid(b)
  const T spread = (narrow ? 1 : width) * decay.width * below * above * quotient;  // D / (e^D - 1)
  return {beyond - before, a * beyond - b * before + (inside ? spread : 0)};
}

// A standard logistic from a uniform in (0, 1), of which 1 - u is exact too.
template <typename T>
HVAE_HD T logistic_of(T u) {
  return log_normal_range(u) - log_normal_range(1 - u);
}

// The level whose bin v lies in, of 0 .. last; the end levels take the tails. NaN gives 0.
template <typename T>
HVAE_HD T level_of(T v, T last) {
  const T k = (v + 1) / 2 * last;
  const T above = k > 0 ? k : 0;
  return round_half_even(above < last ? above : last);
}

// Where a level stands in [-1, 1].
template <typename T>
HVAE_HD T target_of(T level, T last) {
  return (2 * level - last) / last;
}

// tanh, absolute error 6e-8.
template <typename T>
HVAE_HD T tanh_of(T x) {
  const T decay = exp_minus_abs(2 * x);
  const T y = (1 - decay) / (1 + decay);
  return x < 0 ? -y : y;
}

}  // namespace hvae
