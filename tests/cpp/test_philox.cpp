// Philox against its published vectors, the vector path against the scalar one, the normals.
#include <array>
#include <cmath>
#include <cstdio>

#include "expect.h"
#include "kernels/philox_words.h"
#include "math/philox.h"

namespace {

using test::expect;
using test::expect_near;

void test_known_answers() {
  struct Answer {
    hvae::Counter counter;
    hvae::Key key;
    hvae::Words words;
  };
  constexpr uint32_t kOnes = 0xFFFFFFFFu;
  const Answer answers[] = {
      {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5u, 0xe169c58du, 0xbc57ac4cu, 0x9b00dbd8u}},
      {{kOnes, kOnes, kOnes, kOnes},
       {kOnes, kOnes},
       {0x408f276du, 0x41c83b0eu, 0xa20bc7c6u, 0x6d5451fdu}},
      {{0x243f6a88u, 0x85a308d3u, 0x13198a2eu, 0x03707344u},
       {0xa4093822u, 0x299f31d0u},
       {0xd16cfe09u, 0x94fdccebu, 0x5001e420u, 0x24126ea1u}},
  };
  for (const Answer& answer : answers) {
    const hvae::Words words = hvae::philox4x32(answer.counter, answer.key);
    expect(words.x == answer.words.x && words.y == answer.words.y && words.z == answer.words.z &&
               words.w == answer.words.w,
           "Philox4x32-10 gives its published words");
  }
}

void test_words_of_many_blocks() {
  const hvae::NoiseSource source{-1234567890123456789, (int64_t{1} << 40) + 7, 0x80000001u};
  for (int count : {1, 7, 8, 9, 144}) {
    hvae::PlanarWords<144> words;
    uint32_t blocks[144] = {};
    for (int i = 0; i < count; ++i) blocks[i] = static_cast<uint32_t>(i) * 0x12345679u;
    hvae::draw_words(source, blocks, count, words.x, words.y, words.z, words.w);
    for (int i = 0; i < count; ++i) {
      const hvae::Words wanted =
          hvae::philox4x32(hvae::noise_counter(blocks[i], source.stream, source.sample),
                           hvae::noise_key(source.seed));
      expect(words.x[i] == wanted.x && words.y[i] == wanted.y && words.z[i] == wanted.z &&
                 words.w[i] == wanted.w,
             "draw_words equals philox4x32");
    }
  }
}

void test_uniform_bounds() {
  expect(hvae::uniform<float>(0) > 0, "the smallest uniform is above 0");
  const float largest = hvae::uniform<float>(0xFFFFFFFFu);
  expect(largest < 1 && 1 - largest > 0, "the largest uniform is below 1");
}

void test_normals() {
  const uint32_t words[] = {0, 1, 511, 512, 0x3FFFFFFFu, 0x80000000u, 0xDEADBEEFu, 0xFFFFFFFFu};
  for (uint32_t radius : words) {
    for (uint32_t angle : words) {
      const double r = std::sqrt(-2 * std::log(std::floor(radius / 512.0) * 0x1p-23 + 0x1p-24));
      const double turn = angle * (2 * M_PI / 4294967296.0);
      const auto single = hvae::normal4<float>({radius, angle, angle, radius});
      const auto twice = hvae::normal4<double>({radius, angle, angle, radius});
      expect_near(single.x, r * std::cos(turn), 1e-6, "cosine normal, float");
      expect_near(single.y, r * std::sin(turn), 1e-6, "sine normal, float");
      expect_near(twice.x, r * std::cos(turn), 1e-14, "cosine normal, double");
      expect_near(twice.y, r * std::sin(turn), 1e-14, "sine normal, double");
      expect(std::fabs(single.x) <= 5.78 && std::isfinite(single.z), "normals are bounded");
    }
  }
}

void test_moments() {
  constexpr int kBlocks = 1 << 16;
  std::array<double, 5> moments = {};
  for (uint32_t block = 0; block < kBlocks; ++block) {
    const auto n = hvae::normal4<float>(
        hvae::philox4x32(hvae::noise_counter(block, 3, 11), hvae::noise_key(42)));
    for (double value : {n.x, n.y, n.z, n.w}) {
      for (int k = 1; k <= 4; ++k) moments[k] += std::pow(value, k) / (4.0 * kBlocks);
    }
  }
  // Five standard errors of 262 144 draws.
  expect_near(moments[1], 0, 0.01, "mean");
  expect_near(moments[2], 1, 0.007, "second moment");
  expect_near(moments[3], 0, 0.04, "third moment");
  expect_near(moments[4], 3, 0.025, "fourth moment");
}

}  // namespace

int main() {
  test_known_answers();
  test_words_of_many_blocks();
  test_uniform_bounds();
  test_normals();
  test_moments();
  return test::exit_code();
}
