// What all fuzz targets have in common.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <utility>

#include "format/error.h"

// libFuzzer's name and types.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace vmsave {

// What must hold for all that was taken without an error; libFuzzer reports the abort with its input.
inline void Require(bool holds) {
  if (!holds) std::abort();
}

// Whether `decode` takes its bytes. Any exception but Error{kDamaged} is a finding.
template <class Decode>
bool Takes(Decode&& decode) {
  try {
    std::forward<Decode>(decode)();
    return true;
  } catch (const Error& error) {
    Require(error.kind() == ErrorKind::kDamaged);
    return false;
  }
}

// Whether `work` ends without an Error, of whatever kind. Any other exception is a finding.
template <class Work>
bool Succeeds(Work&& work) {
  try {
    std::forward<Work>(work)();
    return true;
  } catch (const Error&) {
    return false;
  }
}

// The first byte of an input chooses what the others are taken for.
struct FuzzInput {
  FuzzInput(const std::uint8_t* data, std::size_t size)
      : choice(size > 0 ? *data : std::uint8_t{0}), bytes(std::as_bytes(std::span(data, size))) {
    if (!bytes.empty()) bytes = bytes.subspan(1);
  }

  std::uint8_t choice;
  std::span<const std::byte> bytes;
};

}  // namespace vmsave
