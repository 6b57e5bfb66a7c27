// Threads that write batches of pages to a store, for one thread that gets the pages.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "io/aligned_buffer.h"
#include "writer/page_store.h"

namespace vmsave {

// Threads that each have a channel of one store. The public calls are one thread's; what fails in the threads is thrown
// by the next of them, and nothing but the destructor may follow then.
class BatchWriters {
 public:
  // Pages of one block, all different. Of either kind, PageChannel::kMaxPages at most.
  struct Batch {
    std::size_t block = 0;
    std::vector<PageIndex> pages;
    std::vector<PageIndex> zeros;
    AlignedBuffer bytes{PageChannel::kMaxPages * kPageBytes};  // of `pages`, in their order
  };

  // Starts that many threads (at least one); two batches and one more are made for each of them. Keeps a reference to
  // the store. Throws Error{kFailed} where a thread cannot be started.
  BatchWriters(PageStore& store, unsigned channels);
  BatchWriters(const BatchWriters&) = delete;
  BatchWriters& operator=(const BatchWriters&) = delete;

  // Ends the threads; what has not been written yet is lost.
  ~BatchWriters();

  // An empty batch; waits until there is one.
  std::unique_ptr<Batch> TakeEmpty();

  // Has the batch written by any of the threads, at any time until Settle.
  void Write(std::unique_ptr<Batch> batch);

  // Returns when all that was given to Write is where it belongs.
  void Settle();

 private:
  // What a thread does next: a batch to write, or nothing = settle its channel.
  using Job = std::unique_ptr<Batch>;

  void StartThreads(unsigned channels);
  void Stop();
  void Run() noexcept;
  std::optional<Job> NextJob(std::uint64_t settled);
  void TakeBack(std::unique_ptr<Batch> batch);
  void NoteSettled();
  void NoteFailure(std::exception_ptr failure);
  // Waits for `condition`, which the threads make true, or for a failure of theirs, which it throws.
  template <class Condition>
  void WaitFor(std::unique_lock<std::mutex>& lock, const Condition& condition);

  PageStore& store_;
  std::mutex mutex_;
  std::condition_variable work_;  // there is something to do for the threads
  std::condition_variable done_;  // a thread has done something
  std::deque<std::unique_ptr<Batch>> queue_;
  std::vector<std::unique_ptr<Batch>> empty_;
  std::uint64_t settle_round_ = 0;  // how often Settle was called
  std::size_t settling_ = 0;        // threads that have not settled in this round
  std::exception_ptr failure_;
  bool stopping_ = false;
  std::vector<std::jthread> threads_;
};

}  // namespace vmsave
