// The quantities that vmsave reckons in, each a type of its own, so that a file offset, a guest address and a length
// cannot be swapped. All arithmetic is checked: a result that does not fit throws Error{kDamaged}, since only a hostile
// image or peer can cause one.
#pragma once

#include <compare>
#include <cstdint>

#include "format/error.h"

namespace vmsave {

template <class Tag>
class Quantity {
 public:
  constexpr Quantity() = default;
  constexpr explicit Quantity(std::uint64_t value) : value_(value) {}
  constexpr std::uint64_t value() const { return value_; }
  friend constexpr auto operator<=>(Quantity, Quantity) = default;

 private:
  std::uint64_t value_ = 0;
};

using ByteCount = Quantity<struct ByteCountTag>;        // a length in bytes
using FileOffset = Quantity<struct FileOffsetTag>;      // a position in a file, in bytes from its start
using GuestAddress = Quantity<struct GuestAddressTag>;  // a guest-physical address
using PageIndex = Quantity<struct PageIndexTag>;        // a page of a RAM block, counted from the block's start

inline constexpr std::uint64_t kPageBytes = 4096;
inline constexpr ByteCount kPageSize{kPageBytes};

// a + b and a - b; throw Error{kDamaged} where the result does not fit.
std::uint64_t CheckedAdd(std::uint64_t a, std::uint64_t b);
std::uint64_t CheckedSubtract(std::uint64_t a, std::uint64_t b);
std::uint64_t CheckedMultiply(std::uint64_t a, std::uint64_t b);

inline ByteCount operator+(ByteCount a, ByteCount b) {
  return ByteCount{CheckedAdd(a.value(), b.value())};
}
inline ByteCount operator-(ByteCount a, ByteCount b) {
  return ByteCount{CheckedSubtract(a.value(), b.value())};
}
inline ByteCount& operator+=(ByteCount& a, ByteCount b) {
  return a = a + b;
}
inline FileOffset operator+(FileOffset a, ByteCount b) {
  return FileOffset{CheckedAdd(a.value(), b.value())};
}
inline FileOffset& operator+=(FileOffset& a, ByteCount b) {
  return a = a + b;
}
inline ByteCount operator-(FileOffset a, FileOffset b) {
  return ByteCount{CheckedSubtract(a.value(), b.value())};
}

// `value` rounded up or down to a multiple of `alignment`, a power of two.
std::uint64_t RoundUp(std::uint64_t value, std::uint64_t alignment);
constexpr std::uint64_t RoundDown(std::uint64_t value, std::uint64_t alignment) {
  return value & ~(alignment - 1);
}

constexpr ByteCount PagesToBytes(PageIndex pages) {
  return ByteCount{pages.value() * kPageBytes};
}

}  // namespace vmsave
