// Byte strings for tests, and the check that something is refused as damaged.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "format/bytes.h"
#include "format/error.h"

namespace vmsave {

using Bytes = std::vector<std::byte>;

// "0a0b" -> {0x0a, 0x0b}. REQUIRES: an even number of lower-case digits.
inline Bytes Hex(std::string_view digits) {
  const auto value = [](char digit) { return static_cast<unsigned>(digit <= '9' ? digit - '0' : digit - 'a' + 10); };
  Bytes bytes;
  for (std::size_t i = 0; i + 1 < digits.size(); i += 2) {
    bytes.push_back(static_cast<std::byte>(value(digits[i]) << 4 | value(digits[i + 1])));
  }
  return bytes;
}

inline std::string ToHex(std::span<const std::byte> bytes) {
  std::string digits;
  for (const std::byte byte : bytes) {
    digits += "0123456789abcdef"[std::to_integer<unsigned>(byte) >> 4];
    digits += "0123456789abcdef"[std::to_integer<unsigned>(byte) & 15];
  }
  return digits;
}

inline Bytes ToBytes(std::string_view text) {
  const auto bytes = AsBytes(text);
  return {bytes.begin(), bytes.end()};
}

inline Bytes Join(std::initializer_list<std::span<const std::byte>> parts) {
  Bytes all;
  for (const auto part : parts) all.insert(all.end(), part.begin(), part.end());
  return all;
}

// Writes `part` over `whole` from `at` on; makes it longer where it must be.
inline void Place(Bytes& whole, std::size_t at, std::span<const std::byte> part) {
  if (whole.size() < at + part.size()) whole.resize(at + part.size());
  std::copy(part.begin(), part.end(), whole.begin() + static_cast<std::ptrdiff_t>(at));
}

// Runs `action`, which must throw Error{kDamaged} with `words` somewhere in its message.
template <class Action>
void ExpectDamaged(Action&& action, std::string_view words) {
  try {
    std::forward<Action>(action)();
    ADD_FAILURE() << "was accepted; expected: " << words;
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kDamaged) << error.what();
    EXPECT_TRUE(std::string_view(error.what()).find(words) != std::string_view::npos)
        << "message: " << error.what() << "\nexpected: " << words;
  }
}

}  // namespace vmsave
