// Reading and writing integers and strings of a fixed byte order, field by field.
#pragma once

#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "format/error.h"

namespace vmsave {

// Writes `value` over the first sizeof(Int) bytes of `out`. REQUIRES: out.size() >= sizeof(Int).
template <std::unsigned_integral Int>
void PutLittleEndian(std::span<std::byte> out, Int value) {
  if constexpr (std::endian::native == std::endian::big) value = __builtin_bswap64(value) >> (64 - 8 * sizeof(Int));
  std::memcpy(out.data(), &value, sizeof value);
}

template <std::unsigned_integral Int>
void PutBigEndian(std::span<std::byte> out, Int value) {
  for (std::size_t i = 0; i < sizeof value; ++i) {
    out[i] = static_cast<std::byte>(value >> (8 * (sizeof value - 1 - i)));
  }
}

// REQUIRES: bytes.size() >= sizeof(Int).
template <std::unsigned_integral Int>
Int GetLittleEndian(std::span<const std::byte> bytes) {
  std::uint64_t value = 0;
  for (std::size_t i = sizeof(Int); i-- > 0;) value = value << 8 | std::to_integer<std::uint64_t>(bytes[i]);
  return static_cast<Int>(value);
}

template <std::unsigned_integral Int>
Int GetBigEndian(std::span<const std::byte> bytes) {
  std::uint64_t value = 0;
  for (std::size_t i = 0; i < sizeof(Int); ++i) value = value << 8 | std::to_integer<std::uint64_t>(bytes[i]);
  return static_cast<Int>(value);
}

inline std::span<const std::byte> AsBytes(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

inline std::string AsText(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// Appends fields to a growing byte string.
class ByteWriter {
 public:
  void Append(std::span<const std::byte> bytes) { bytes_.insert(bytes_.end(), bytes.begin(), bytes.end()); }
  void Append(std::string_view text) { Append(AsBytes(text)); }
  void AppendZeros(std::size_t count) { bytes_.resize(bytes_.size() + count); }

  template <std::unsigned_integral Int>
  void AppendLittleEndian(Int value) {
    std::byte field[sizeof(Int)];
    PutLittleEndian<Int>(field, value);
    Append(field);
  }
  template <std::unsigned_integral Int>
  void AppendBigEndian(Int value) {
    std::byte field[sizeof(Int)];
    PutBigEndian<Int>(field, value);
    Append(field);
  }

  std::size_t size() const { return bytes_.size(); }
  std::vector<std::byte> Take() { return std::move(bytes_); }

 private:
  std::vector<std::byte> bytes_;
};

// Takes fields off the front of a byte string; one that is not all there is Error{kDamaged} "WHAT: it ends early".
class ByteReader {
 public:
  ByteReader(std::span<const std::byte> bytes, std::string_view what) : rest_(bytes), what_(what) {}

  std::span<const std::byte> Take(std::uint64_t count) {
    if (count > rest_.size()) throw Error(ErrorKind::kDamaged, what_, "it ends early");
    const std::span<const std::byte> taken = rest_.first(count);
    rest_ = rest_.subspan(count);
    return taken;
  }
  template <std::unsigned_integral Int>
  Int TakeLittleEndian() {
    return GetLittleEndian<Int>(Take(sizeof(Int)));
  }
  template <std::unsigned_integral Int>
  Int TakeBigEndian() {
    return GetBigEndian<Int>(Take(sizeof(Int)));
  }
  std::size_t left() const { return rest_.size(); }

 private:
  std::span<const std::byte> rest_;
  std::string what_;
};

}  // namespace vmsave
