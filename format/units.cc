#include "format/units.h"

namespace vmsave {
namespace {

[[noreturn]] void ThrowOutOfRange() {
  throw Error(ErrorKind::kDamaged, "cannot reckon with a size or an offset", "it is out of range");
}

}  // namespace

std::uint64_t CheckedAdd(std::uint64_t a, std::uint64_t b) {
  std::uint64_t sum = 0;
  if (__builtin_add_overflow(a, b, &sum)) ThrowOutOfRange();
  return sum;
}

std::uint64_t CheckedSubtract(std::uint64_t a, std::uint64_t b) {
  if (b > a) ThrowOutOfRange();
  return a - b;
}

std::uint64_t CheckedMultiply(std::uint64_t a, std::uint64_t b) {
  std::uint64_t product = 0;
  if (__builtin_mul_overflow(a, b, &product)) ThrowOutOfRange();
  return product;
}

std::uint64_t RoundUp(std::uint64_t value, std::uint64_t alignment) {
  return RoundDown(CheckedAdd(value, alignment - 1), alignment);
}

}  // namespace vmsave
