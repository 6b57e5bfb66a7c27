// Writes pages that come in any order to their places, by way of a few buffers.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "io/aligned_buffer.h"
#include "io/io_engine.h"
#include "writer/page_places.h"

namespace vmsave {

// One thread's. Pages of one block are gathered in a buffer; once it is full, neighbours in both buffer and file are
// written by one request, while the next buffer is filled. All calls throw Error{kFailed} for what the file refuses,
// which may be pages of an earlier call; nothing but the destructor may follow then.
class PageWriter {
 public:
  static constexpr std::size_t kBufferPages = 256;

  // At most as many buffers, of 1 MiB each, as the engine has depth. Keeps a reference to the places.
  PageWriter(const PagePlaces& places, std::unique_ptr<IoEngine> engine);

  // Room for the bytes of that many pages of one block. May wait for the device. REQUIRES: 1..kBufferPages.
  std::span<std::byte> Room(std::size_t block, std::size_t count);

  // The room is filled in with these pages. They may be written from now on, and those that come again before Drain may
  // be written in any order; within one buffer the last one is.
  void Took(std::span<const PageIndex> pages);

  // Returns when all pages are written.
  void Drain();

 private:
  struct Page {
    std::uint64_t page;
    std::size_t slot;  // its place in the buffer
  };

  void AcquireBuffer();
  void Submit();
  void KeepLastCopies();
  void SubmitRun(std::span<const Page> run);
  void WaitForOne() { Release(engine_->Wait()); }
  void Release(RequestId buffer);

  const PagePlaces& places_;
  std::vector<AlignedBuffer> buffers_;
  std::vector<unsigned> users_;  // of each buffer: its writes in flight, and who fills it
  std::vector<RequestId> free_;
  std::optional<RequestId> filling_;
  std::size_t block_ = 0;             // of the buffer that is being filled
  std::vector<Page> pages_;           // in it
  std::unique_ptr<IoEngine> engine_;  // destroyed first: waits for the writes that still use the buffers
};

}  // namespace vmsave
