// What the source of a postcopy migration tells QEMU beside pages, and what QEMU answers on the return path (QEMU
// migration/savevm.c, migration/migration.c and migration/ram.c of 4.0 to 10.0; docs/devel/migration/postcopy.rst). All
// integers are big-endian, but for the words of a bitmap. What QEMU sends is hostile: it may have been taken over by
// its guest.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "format/page_bitmap.h"
#include "format/qemu_stream.h"

namespace vmsave {

// A RAM block as a receiving QEMU has it.
struct PostcopyBlock {
  std::string name;
  ByteCount length;
  ByteCount host_page = kPageSize;  // its backend's pages: larger in hugetlbfs. Divides the length

  std::uint64_t pages() const { return length.value() / kPageBytes; }
  std::uint64_t pages_per_host_page() const { return host_page.value() / kPageBytes; }
};

// From the magic on until QEMU has opened its return path, knows the blocks and has emptied them. REQUIRES: names of at
// most 255 bytes.
void AppendPostcopyHead(ByteWriter& out, const StreamFrame& frame, std::span<const PostcopyBlock> blocks);

// Lets the guest run: QEMU loads the devices, and from their first access on asks for pages. `devices` as
// DeviceSections gives them.
void AppendPostcopyStart(ByteWriter& out, std::span<const std::byte> devices);

// The sections of the devices alone: the device state up to its EOF. Nothing where it has no end that can be told.
std::optional<std::span<const std::byte>> DeviceSections(std::span<const std::byte> device_state);

// On a new connection, after the one before was lost: asks QEMU which pages it has, and then to go on. In one piece: a
// QEMU before 8.2 that reads a part of it and then finds the connection closed does not survive that.
void AppendPostcopyRecovery(ByteWriter& out, std::span<const PostcopyBlock> blocks);

// Every page has come that is not zero.
void AppendPostcopyEnd(ByteWriter& out, const StreamFrame& frame);

// What the guest waits for: the pages of one host page, as QEMU asks for no more at once (migration/postcopy-ram.c).
struct PageRequest {
  std::size_t block;
  PageRun pages;
};

// Which pages of a block QEMU has already; in answer to a recovery, for each block once.
struct ReceivedPages {
  std::size_t block;
  PageBitmap pages;
};

struct ResumeAccepted {};

// The end: QEMU has all that it was sent, or could not load it.
struct PostcopyDone {
  bool failed;
};

using PostcopyAnswer = std::variant<PageRequest, ReceivedPages, ResumeAccepted, PostcopyDone>;

// Takes apart what comes on the return path of one connection, in whatever pieces.
class ReturnPathDecoder {
 public:
  explicit ReturnPathDecoder(std::vector<PostcopyBlock> blocks)
      : blocks_(std::move(blocks)), bitmap_came_(blocks_.size()) {}

  // Appends bytes. Keeps those that are no whole answer yet: at most a bitmap of the largest block.
  void Feed(std::span<const std::byte> bytes);

  // The next answer; nothing until more bytes come. Throws Error{kFailed} that tells what came, where it is none: an
  // unknown type, a length that is not the type's, a block that is not there, a request for anything but a host page of
  // its block, a second bitmap of a block, anything behind PostcopyDone.
  std::optional<PostcopyAnswer> Next();

 private:
  std::optional<PostcopyAnswer> Take(std::uint16_t type, std::span<const std::byte> data);
  std::optional<PostcopyAnswer> TakeBitmap();
  ReceivedPages DecodeBitmap(std::size_t block, std::span<const std::byte> bytes);
  PageRequest MakeRequest(std::uint64_t start, std::uint64_t length);
  std::size_t FindBlock(std::string_view name) const;

  std::vector<PostcopyBlock> blocks_;
  std::vector<bool> bitmap_came_;  // of each block
  std::vector<std::byte> bytes_;
  std::size_t taken_ = 0;                      // of bytes_
  std::optional<std::size_t> requested_of_;    // the block that the last request named
  std::optional<std::size_t> bitmap_follows_;  // behind the frame that announced it
  bool done_ = false;
};

}  // namespace vmsave
