#include "io/random_name.h"

#include <random>
#include <string_view>

namespace vmsave {

std::string RandomSuffix() {
  constexpr std::size_t kCharacters = 6;
  constexpr std::string_view kAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
  std::random_device random;
  std::uniform_int_distribution<std::size_t> pick(0, kAlphabet.size() - 1);
  std::string suffix;
  for (std::size_t i = 0; i < kCharacters; ++i) suffix += kAlphabet[pick(random)];
  return suffix;
}

}  // namespace vmsave
