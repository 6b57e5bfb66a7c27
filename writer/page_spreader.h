// Takes the pages of one sequential stream and has several channels of a store write them.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "format/stream_reader.h"
#include "writer/batch_writers.h"
#include "writer/page_store.h"

namespace vmsave {

// The thread that reads the stream only puts bytes into batches; hashing and writing is done by threads of its own, one
// for each channel. Memory is bounded: two batches of 1 MiB for each channel and one more, besides the channels' own. A
// page that comes again waits until its former copy is where it belongs.
//
// One thread's. What fails in the threads is thrown by one of the next calls, at the latest by Finish; nothing but the
// destructor may follow then. The destructor ends the threads, whatever they are at, and leaves the image incomplete.
class PageSpreader final : public PageSink {
 public:
  // Called when the block list has come.
  using StoreMaker = std::function<std::unique_ptr<PageStore>(const StreamContents& contents)>;

  PageSpreader(unsigned channels, StoreMaker make_store);
  ~PageSpreader() override;
  PageSpreader(const PageSpreader&) = delete;
  PageSpreader& operator=(const PageSpreader&) = delete;

  void OnBlocks(const StreamContents& contents) override;
  std::span<std::byte> PageTarget(std::size_t block, PageIndex page) override;
  void OnZeroPage(std::size_t block, PageIndex page) override;

  // The last page has come: returns the store once all are where they belong and the threads have ended; complete it.
  // REQUIRES: OnBlocks was called; no call follows.
  std::unique_ptr<PageStore> Finish();

 private:
  BatchWriters::Batch& BatchFor(std::size_t block, PageIndex page);
  void NoteArrival(std::size_t block, PageIndex page);
  void Send();
  void Settle();

  // Pages of one block; forgetting them takes no longer than noting them did, however large the block is.
  class ArrivedPages {
   public:
    explicit ArrivedPages(std::uint64_t pages) : words_((pages + 63) / 64) {}

    // False where the page is noted already.
    bool Note(PageIndex page);
    void Forget();

   private:
    std::vector<std::uint64_t> words_;  // a bit for each page
    std::vector<std::uint64_t> used_;   // numbers of those that are not 0
  };

  unsigned channels_;
  StoreMaker make_store_;
  std::vector<ArrivedPages> arrived_;  // of each block, since the channels were last settled
  std::unique_ptr<PageStore> store_;
  std::unique_ptr<BatchWriters> writers_;
  std::unique_ptr<BatchWriters::Batch> batch_;  // that is being filled
};

}  // namespace vmsave
