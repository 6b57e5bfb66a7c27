#include "format/page_hash.h"

#if defined(__x86_64__)
#include <xxh_x86dispatch.h>  // maps XXH3_64bits and its like onto the dispatched functions
#else
#include <xxhash.h>
#endif

#include <new>

namespace vmsave {

struct Xxh3Stream::State {
  State() : xxh(XXH3_createState()) {
    if (xxh == nullptr) throw std::bad_alloc();
    XXH3_64bits_reset(xxh);
  }
  ~State() { XXH3_freeState(xxh); }
  State(const State&) = delete;
  State& operator=(const State&) = delete;
  XXH3_state_t* xxh;
};

std::uint64_t Xxh3(std::span<const std::byte> bytes) {
  return XXH3_64bits(bytes.data(), bytes.size());
}

Xxh3Stream::Xxh3Stream() : state_(std::make_unique<State>()) {}
Xxh3Stream::~Xxh3Stream() = default;
Xxh3Stream::Xxh3Stream(Xxh3Stream&&) noexcept = default;
Xxh3Stream& Xxh3Stream::operator=(Xxh3Stream&&) noexcept = default;

void Xxh3Stream::Update(std::span<const std::byte> bytes) {
  XXH3_64bits_update(state_->xxh, bytes.data(), bytes.size());
}

std::uint64_t Xxh3Stream::Finish() {
  const std::uint64_t hash = XXH3_64bits_digest(state_->xxh);
  XXH3_64bits_reset(state_->xxh);
  return hash;
}

}  // namespace vmsave
