#include "reader/decompressed_source.h"

#include <algorithm>
#include <utility>

namespace vmsave {

void DecompressedSource::NextPiece() {
  interrupt_.Check();
  ready_ = decoder_->Next();
}

std::size_t DecompressedSource::ReadSome(std::span<std::byte> out) {
  if (ready_.empty()) NextPiece();
  const std::size_t count = std::min(out.size(), ready_.size());
  std::copy_n(ready_.begin(), count, out.begin());
  ready_ = ready_.subspan(count);
  position_ += ByteCount{count};
  return count;
}

// The byte lies in the piece still, which is given up only when the next one is asked for.
void DecompressedSource::StepBack() {
  ready_ = {ready_.data() - 1, ready_.size() + 1};
  position_ = FileOffset{position_.value() - 1};
}

std::span<const std::byte> DecompressedSource::TakePiece() {
  if (ready_.empty()) NextPiece();
  position_ += ByteCount{ready_.size()};
  return std::exchange(ready_, {});
}

}  // namespace vmsave
