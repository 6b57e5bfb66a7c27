// XXH3-64, the one hash of version 3 images, by the widest instructions that this CPU has (chosen at run time by
// xxHash).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

namespace vmsave {

std::uint64_t Xxh3(std::span<const std::byte> bytes);

// The hash of bytes that come in pieces: the same as Xxh3 of the pieces put together. Not thread-safe; reusable after
// Finish.
class Xxh3Stream {
 public:
  Xxh3Stream();
  ~Xxh3Stream();
  Xxh3Stream(Xxh3Stream&&) noexcept;
  Xxh3Stream& operator=(Xxh3Stream&&) noexcept;

  void Update(std::span<const std::byte> bytes);

  // The hash of all that came since the last Finish.
  std::uint64_t Finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace vmsave
