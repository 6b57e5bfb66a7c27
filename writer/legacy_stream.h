// A version 2 image as a function of the guest's RAM: any stretch of the file can be made by itself, once it is known
// which pages are present.
#pragma once

#include <span>
#include <vector>

#include "format/page_bitmap.h"
#include "writer/ram_block.h"

namespace vmsave {

// Immutable after construction: channels make different stretches at the same time. Keeps references to guest and
// bitmaps.
class LegacyStream {
 public:
  // `before_stream`: the file's bytes in front of the stream.
  LegacyStream(std::vector<std::byte> before_stream, const GuestImage& guest, const std::vector<PageBitmap>& present);

  // Of the whole file.
  ByteCount length() const { return length_; }

  // Fills `out` with the file's bytes from `offset` on. REQUIRES: offset + out.size() <= length().
  void Make(FileOffset offset, std::span<std::byte> out) const;

 private:
  // Neighbouring pages of one block; where the record of the first of them starts.
  struct Group {
    std::uint64_t file_offset;
    std::size_t block;
    std::uint64_t first_page;
    std::uint64_t end_page;
  };
  class Clip;
  void AddGroups(std::size_t block);
  void MakeGroup(const Group& group, Clip& clip) const;

  std::vector<std::byte> prefix_;
  std::vector<Group> groups_;
  std::vector<std::byte> suffix_;
  std::uint64_t suffix_offset_ = 0;
  ByteCount length_;
  const GuestImage& guest_;
  const std::vector<PageBitmap>& present_;
};

}  // namespace vmsave
