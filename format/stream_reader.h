// Reads QEMU's stream up to the device state, page by page, from wherever its bytes come: a file, a socket. The stream
// is taken to be hostile: every length, offset, name and flag is checked before it is used.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "format/mapped_ram.h"
#include "format/units.h"

namespace vmsave {

// Where a stream's bytes come from, in order.
class ByteSource {
 public:
  virtual ~ByteSource() = default;

  // Up to out.size() bytes; 0 only at the end.
  virtual std::size_t ReadSome(std::span<std::byte> out) = 0;

  // Where in the file the next byte lies (or how many came before it, for a socket).
  virtual FileOffset position() const = 0;

  // How many bytes are left, where that is known before the end has come.
  virtual std::optional<ByteCount> Left() const { return std::nullopt; }

  // Goes on at `position`, which is never behind the present one. A socket reads and drops what lies between.
  virtual void SkipTo(FileOffset position);

  // The byte that ReadSome gave last comes once more, and position() is that of it. REQUIRES: ReadSome gave one, and
  // nothing was called since that moves the position. A source that cannot throws Error{kDamaged}: by default, none
  // can.
  virtual void StepBack();

  // Fills all of `out`; Error{kDamaged} "ends early" where the source ends before that.
  void Read(std::span<std::byte> out);

  // What messages call it: a file, "the migration stream of GUEST".
  virtual std::string_view name() const = 0;
};

// A block of the list in ram START.
struct StreamBlock {
  std::string name;
  ByteCount length;
  std::optional<GuestAddress> address;        // with x-ignore-shared
  std::optional<MappedRamHeader> mapped_ram;  // with mapped-ram
  PageBitmap present;                         // with mapped-ram: the bitmap in the file

  std::uint64_t pages() const { return length.value() / kPageBytes; }
};

struct StreamContents {
  StreamFrame frame;
  std::vector<std::string> capabilities;
  std::vector<StreamBlock> blocks;

  bool HasCapability(std::string_view name) const;
  std::vector<BlockShape> block_shapes() const;
  ByteCount ram_length() const;  // of all blocks
  bool has_mapped_ram() const { return HasCapability(kMappedRamCapability); }
};

// Who takes the pages. Calls come in the stream's order; a page may come more than once, and the last time counts.
class PageSink {
 public:
  virtual ~PageSink() = default;

  // Once, before the first page: the block list is complete. Of the frame, switchover_start may still change.
  virtual void OnBlocks(const StreamContents& contents) = 0;

  // 4096 bytes of memory that the page is to be read into, which is done when the next call comes; empty to pass over
  // it.
  virtual std::span<std::byte> PageTarget(std::size_t block, PageIndex page) = 0;

  virtual void OnZeroPage(std::size_t block, PageIndex page) = 0;

  // The end of the records of one section, the block list's too; and a MULTIFD_FLUSH record among them. Of interest
  // where other pages come over multifd channels beside the stream.
  virtual void OnEndOfRecords() {}
  virtual void OnMultifdFlush() {}
};

// Takes no page.
class PassOverPages : public PageSink {
 public:
  void OnBlocks(const StreamContents&) override {}
  std::span<std::byte> PageTarget(std::size_t, PageIndex) override { return {}; }
  void OnZeroPage(std::size_t, PageIndex) override {}
};

// Notes which pages are present in the end, and takes none.
class PresenceSink : public PageSink {
 public:
  void OnBlocks(const StreamContents& contents) override {
    for (const StreamBlock& block : contents.blocks) present_.emplace_back(block.pages());
  }
  std::span<std::byte> PageTarget(std::size_t block, PageIndex page) override {
    present_[block].Set(page.value());
    return {};
  }
  void OnZeroPage(std::size_t block, PageIndex page) override { present_[block].Clear(page.value()); }

  // Of each block.
  std::vector<PageBitmap> Take() { return std::move(present_); }

 private:
  std::vector<PageBitmap> present_;
};

// More than any guest has.
inline constexpr ByteCount kMostRam{std::uint64_t{1} << 46};  // 64 TiB

// What the stream does not tell, but who has it from QEMU or from a file.
struct StreamOrigin {
  // QEMU 4.0, and no other version (4.0.91 is 4.1's second candidate), sends one byte more behind each block's address
  // with x-ignore-shared: whether the block's pages are left out (QEMU migration/ram.c, v4.0.0 and b17fbbe55cba).
  bool tells_ignored_blocks = false;

  // A block list of more is refused before memory is taken for it: what keeps a bit or more for each page. At most
  // kMostRam.
  ByteCount most_ram = kMostRam;
};

// Reads from the stream's magic to behind ram's END; the source then stands at the device state. A background snapshot
// has no END: its device state starts at the first device behind a PART, which the source steps back to. With
// mapped-ram, pages are not passed to the sink: bitmaps are read, and the pages lie at their fixed offsets. Throws
// Error{kDamaged} naming the source, the position and what is wrong there.
StreamContents ReadStreamUpToDevices(ByteSource& source, PageSink& sink, const StreamOrigin& origin = {});

// Reads what comes before the first record of a page: machine, capabilities, block list. A mapped-ram stream has no
// such records: it is read up to the device state, where the source then stands.
StreamContents ReadStreamHead(ByteSource& source, const StreamOrigin& origin = {});

// The largest device state that is taken; a PC's is some 100 KiB, a large one some MiB.
inline constexpr std::uint64_t kMaxDeviceStateBytes = 512 << 20;

// The rest of the source. Throws Error{kDamaged} where it is larger than kMaxDeviceStateBytes.
std::vector<std::byte> ReadDeviceState(ByteSource& source);

}  // namespace vmsave
