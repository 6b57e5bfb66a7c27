// A source of the bytes of an input.
#pragma once

#include <algorithm>
#include <span>

#include "format/stream_reader.h"
#include "tests/fuzz/fuzz_target.h"

namespace vmsave {

class SpanSource : public ByteSource {
 public:
  // A file skips for nothing, also past its end; a socket brings few bytes at a time.
  enum class Kind { kFile, kSocket };

  SpanSource(std::span<const std::byte> bytes, Kind kind) : bytes_(bytes), kind_(kind) {}

  std::size_t ReadSome(std::span<std::byte> out) override {
    if (position_ >= bytes_.size()) return 0;
    const std::size_t most = kind_ == Kind::kSocket ? kSocketPiece : out.size();
    const auto rest = bytes_.subspan(position_);
    const auto piece = rest.first(std::min({out.size(), most, rest.size()}));
    std::ranges::copy(piece, out.begin());
    position_ += piece.size();
    return piece.size();
  }
  FileOffset position() const override { return FileOffset{position_}; }
  void SkipTo(FileOffset target) override {
    Require(target.value() >= position_);
    if (kind_ == Kind::kSocket) {
      ByteSource::SkipTo(target);
    } else {
      position_ = target.value();
    }
  }
  void StepBack() override {
    Require(position_ > 0);
    --position_;
  }
  std::string_view name() const override { return "fuzz"; }

 private:
  static constexpr std::size_t kSocketPiece = 3;

  std::span<const std::byte> bytes_;
  Kind kind_;
  std::uint64_t position_ = 0;
};

}  // namespace vmsave
