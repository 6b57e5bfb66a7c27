// Where those meet who serve a guest its pages while it runs: who hears what it asks for, who reads, and who sends.
// Every page that is not zero goes over it once; what the guest waits for goes first.
#pragma once

#include <chrono>
#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "format/postcopy.h"
#include "io/aligned_buffer.h"
#include "reader/fill_order.h"
#include "reader/image.h"
#include "reader/latency.h"
#include "reader/next_demands.h"

namespace vmsave {

struct FillOptions {
  bool on = true;                 // else pages are only sent when they are asked for
  std::optional<ByteCount> rate;  // bytes of the image in a second, at most
  // For so long it is noted what is asked for: the guest's working set.
  std::chrono::steady_clock::duration noted = std::chrono::minutes(1);
};

struct ServingFigures {
  std::uint64_t demands = 0;  // times that the guest waited
  ByteCount demanded;         // bytes sent because of that
  ByteCount filled;           // sent before the guest asked
  ByteCount left;             // present, and not sent yet
  LatencyCount latency;       // from the guest's question until the answer was sent
};

// Pages that were read: those of `chunk` that are present lie in their places in `buffer`.
struct ReadPages {
  WorkChunk chunk;
  AlignedBuffer buffer;
};

// What is sent at once: pages of one block in the order in which they go, host pages whole.
struct PagesToSend {
  std::size_t block = 0;
  std::vector<PageIndex> pages{};
  const ReadPages* from = nullptr;  // where those that are present lie; valid until the next are asked for
  bool demanded = false;
  std::vector<std::chrono::steady_clock::time_point> awaited_since{};  // by the guest
};

// Thread-safe, but for one sender. Keeps references.
class ServingDesk {
 public:
  using Clock = std::chrono::steady_clock;

  // `blocks` are the image's, as QEMU has them; `received`, where it is not empty: what QEMU has of each already.
  ServingDesk(const Image& image, const std::vector<PostcopyBlock>& blocks, const FillOptions& fill,
              std::size_t fill_buffers, std::vector<PageBitmap> received = {},
              const std::deque<WorkChunk>& expected = {});

  // The guest waits for this.
  void Ask(const PageRequest& request);

  // What to read next because the guest waits for it; waits for that. Nothing once the desk is closed.
  std::optional<WorkChunk> TakeDemand();

  // What to read next, and where to, before anybody asks; gives way to a guest that asks, unless it is expected to ask
  // for this, and keeps to the rate. Nothing where there is no more; without `wait`, also where it is not to begin now.
  std::optional<ReadPages> TakeFill(bool wait);

  // It was read, and is right.
  void PutDemanded(ReadPages read);
  void PutFilled(ReadPages read);

  // It was read, and must not be sent.
  void DropDemanded();
  void DropFilled(ReadPages read);

  // What to send next, once there is something; what the guest waits for goes first. No page comes twice. What came
  // before has been sent. Nothing where all present pages have been and it may end, or the desk is closed.
  std::optional<PagesToSend> NextToSend();

  // Until then zero pages are sent that are asked for, also once all present ones have been.
  void LetEnd();

  // All present pages have been sent, and it may end.
  bool IsComplete() const;
  ServingFigures figures() const;

  // The chunks that were asked for, in order, also those that were on their way by then, as far as they are noted; and
  // whether no more will be.
  std::vector<WorkChunk> NeededFirst() const;
  bool HasNotedAll() const;

  // Everybody who waits goes home.
  void Close();
  bool closed() const;

 private:
  bool IsDone() const { return may_end_ && pages_left_ == 0; }
  bool IsAtEnd() const { return closed_ || IsDone(); }

  struct Wanted {
    std::uint64_t host_page;
    Clock::time_point since;
  };
  using ChunkKey = std::pair<std::size_t, std::uint64_t>;  // block, first page

  std::uint64_t DemandPages(std::size_t block) const;
  WorkChunk ChunkAround(std::size_t block, std::uint64_t page) const;
  const PageBitmap& Present(std::size_t block) const;
  bool IsPresent(std::size_t block, std::uint64_t host_page) const;
  std::optional<WorkChunk> NextLeft(std::size_t block, std::uint64_t from, std::uint64_t to) const;
  std::optional<WorkChunk> NextUnsent(bool only_expected);
  std::optional<WorkChunk> FirstUnsentPart(const WorkChunk& chunk);
  void NoteNeeded(const WorkChunk& chunk, Clock::time_point when);
  void LookAhead(const WorkChunk& asked, Clock::time_point when);
  void NotePassed(const WorkChunk& passed, Clock::time_point when);
  bool IsDiskForDemands() const;
  bool MustGiveWay(Clock::time_point now) const;
  ReadPages BeginFill(const WorkChunk& chunk, Clock::time_point now);
  void KeepToRate(const WorkChunk& chunk);
  void NoteLastIsSent();
  void GiveBack(AlignedBuffer buffer);
  PagesToSend ZeroPages();
  PagesToSend DemandedPages();
  PagesToSend SliceOfFill();
  void Claim(std::uint64_t host_page, PagesToSend& claimed);

  const Image& image_;
  const std::vector<PostcopyBlock>& blocks_;
  const FillOptions fill_;
  const Clock::time_point start_ = Clock::now();

  mutable std::mutex mutex_;
  std::condition_variable demand_came_;
  std::condition_variable fill_may_begin_;
  std::condition_variable something_to_send_;
  bool closed_ = false;
  bool may_end_ = false;

  std::vector<PageBitmap> sent_;                      // or claimed for it
  std::uint64_t pages_left_ = 0;                      // present and not claimed
  std::map<ChunkKey, std::vector<Wanted>> wanted_;    // of chunks that are demanded and not sent
  std::deque<std::pair<std::size_t, Wanted>> zeros_;  // demanded, by block
  std::deque<WorkChunk> demands_;                     // to be read
  std::size_t being_read_ = 0;                        // of them
  std::deque<ReadPages> demanded_;                    // read
  std::deque<ReadPages> filled_;
  std::optional<ReadPages> demanded_now_;  // being sent
  std::optional<ReadPages> fill_now_;
  std::uint64_t slice_from_ = 0;                  // page of it
  std::vector<Clock::time_point> awaited_since_;  // what the sender was given last
  FillOrder order_;
  NextDemands next_demands_;
  Clock::time_point last_asked_;
  Clock::time_point fill_began_;     // the last
  std::size_t fill_being_read_ = 0;  // chunks
  bool one_looks_again_ = false;     // of those who wait, whether filling may begin; others are told
  std::vector<AlignedBuffer> free_buffers_;
  Clock::time_point fill_not_before_;
  ServingFigures figures_;
  std::vector<WorkChunk> needed_first_;
  std::vector<PageBitmap> noted_;  // those: of each block a bit for each chunk of one hash
};

}  // namespace vmsave
