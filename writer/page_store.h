// An image of a guest whose pages arrive one after another: over several channels, in any order, and more than once.
#pragma once

#include <sys/uio.h>

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "format/mapped_ram.h"
#include "writer/image_writer.h"

namespace vmsave {

// One thread's way into a PageStore. All calls throw Error{kFailed} for what the file refuses, which may be pages of an
// earlier call; nothing but the destructor may follow then.
class PageChannel {
 public:
  static constexpr std::size_t kMaxPages = 256;

  virtual ~PageChannel() = default;

  // Room for the bytes of these pages of one block, in their order: 4096 bytes each, in as few pieces as can be. The
  // caller fills it, then calls Commit. It stays valid until then. Pages of one call differ from each other.
  // REQUIRES: block and pages exist; 1..kMaxPages of them; what was placed before is committed.
  virtual std::span<const iovec> Place(std::size_t block, std::span<const PageIndex> pages) = 0;

  // What was placed is filled in: it belongs to the image from now on.
  virtual void Commit() = 0;

  // These pages are zero now, whatever they held when they came before.
  virtual void Zero(std::size_t block, std::span<const PageIndex> pages) = 0;

  // Returns when all that was committed is where it belongs: nothing that comes later, on any channel, can be
  // overtaken by it. Of a page that comes again between two Settle()s of all channels nobody knows which copy stays.
  virtual void Settle() = 0;
};

// What is known of the guest when its first page comes.
struct ArrivingGuest {
  StreamFrame frame;  // switchover_start may be found out later
  std::vector<BlockShape> blocks;
  std::string description;
  bool was_running = true;
};

class PageStore {
 public:
  virtual ~PageStore() = default;

  // May be called from any thread; different channels may be used at the same time. The store must outlive them.
  virtual std::unique_ptr<PageChannel> OpenChannel() = 0;

  // All pages have come, and all channels are settled and gone: writes the rest and makes the image complete and
  // durable, but for its name. `frame` as it was found to be in the end. Throws Error{kFailed}, also where a channel
  // ended without being settled, and Error{kInterrupted}.
  virtual WriteTotals Complete(const StreamFrame& frame, std::span<const std::byte> device_state, Progress& progress,
                               const Interrupt& interrupt) = 0;
};

// Version 3: each page at its fixed offset. A page that comes again is written over its former copy, one that became
// zero leaves its bytes in the file but loses its bit: the file never grows. Checksums are made as pages come; chunks
// that came in parts or more than once are read back by Complete, in parallel. Each channel gathers pages of one block
// in buffers of 1 MiB, as many as ChannelDepth(options.channels).
std::unique_ptr<PageStore> MakeVersion3Store(NewFile& file, ArrivingGuest guest, const WriteOptions& options);

// The same without checksums, in libvirt's envelope.
std::unique_ptr<PageStore> MakeLibvirtSparseStore(NewFile& file, ArrivingGuest guest, const WriteOptions& options);

// Version 2: records in the order in which they come; a page that comes again is there again, and the last one counts.
std::unique_ptr<PageStore> MakeVersion2Store(NewFile& file, ArrivingGuest guest, const WriteOptions& options);

}  // namespace vmsave
