// A version 2 image as a function of the guest's RAM: any stretch of the file can be made by itself, as soon as it is
// known which pages in front of its end are present.
#pragma once

#include <atomic>
#include <mutex>
#include <span>
#include <vector>

#include "format/page_bitmap.h"
#include "format/work_plan.h"
#include "writer/ram_block.h"

namespace vmsave {

// Becomes known from its beginning on while channels look at the guest's pages; they make different stretches of what
// is known at the same time. Keeps references to guest and bitmaps.
class LegacyStream {
 public:
  // `before_stream`: the file's bytes in front of the stream.
  LegacyStream(std::vector<std::byte> before_stream, const GuestImage& guest, const std::vector<PageBitmap>& present);

  // The chunks in which it becomes known.
  const WorkPlan& plan() const { return plan_; }

  // No less than the file will have: as if no page were zero.
  ByteCount longest() const;

  // The bits of this chunk's pages are set, and will stay so. To be called once for each, in any order.
  void Settle(std::uint64_t chunk);

  // What can be made: all in front of the first chunk that is not settled.
  struct Known {
    FileOffset end;
    bool whole;  // then `end` is that of the file
  };
  Known known() const;

  // Fills `out` with the file's bytes from `offset` on. REQUIRES: offset + out.size() <= known().end.
  void Make(FileOffset offset, std::span<std::byte> out) const;

 private:
  class Clip;
  std::uint64_t LengthOf(const WorkChunk& chunk, std::uint64_t present) const;
  void MakeChunk(std::uint64_t number, Clip& clip) const;

  const GuestImage& guest_;
  const std::vector<PageBitmap>& present_;
  WorkPlan plan_;
  std::vector<std::byte> prefix_;
  std::vector<std::byte> suffix_;

  std::mutex settling_;
  std::vector<std::uint64_t> lengths_;  // of each chunk's records; 0 where it is not settled
  std::vector<std::uint64_t> starts_;   // where the records of chunk n begin, and what is behind the last; up to known_
  std::atomic<std::uint64_t> known_{0};  // chunks in front of the first that is not settled
};

}  // namespace vmsave
