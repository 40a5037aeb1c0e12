// Where the parameters of a logistic mixture lie among its channels; see kernels/logistic_mixture.h.
#pragma once

#include <cstdint>

#include "math/macros.h"

namespace hvae {

// Index is the type that channels are counted in.
template <int kColours, typename Index>
struct MixtureChannels {
  Index mixtures;

  HVAE_HD Index logit(Index m) const { return m; }
  HVAE_HD Index mean(int colour, Index m) const {
    return mixtures * (1 + (kColours == 3 ? 3 : 2) * colour) + m;
  }
  HVAE_HD Index log_scale(int colour, Index m) const { return mean(colour, m) + mixtures; }
  // With three colours only.
  HVAE_HD Index coefficient(int slot, Index m) const { return mean(slot, m) + 2 * mixtures; }
};

// tanh of the coefficient in a colour's slot, times the target of one colour, shifts the mean of
// another. For loops on the host.
struct Coupling {
  int slot, source, shifted;
};
constexpr Coupling kCouplings[] = {{0, 0, 1}, {1, 0, 2}, {2, 1, 2}};

}  // namespace hvae
