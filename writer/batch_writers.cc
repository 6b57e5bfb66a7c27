#include "writer/batch_writers.h"

#include <cstring>
#include <system_error>
#include <utility>

namespace vmsave {
namespace {

void WriteBatch(const BatchWriters::Batch& batch, PageChannel& channel) {
  if (!batch.zeros.empty()) channel.Zero(batch.block, batch.zeros);
  if (batch.pages.empty()) return;
  const std::byte* from = batch.bytes.bytes().data();
  for (const iovec& piece : channel.Place(batch.block, batch.pages)) {
    std::memcpy(piece.iov_base, from, piece.iov_len);
    from += piece.iov_len;
  }
  channel.Commit();
}

}  // namespace

BatchWriters::BatchWriters(PageStore& store, unsigned channels) : store_(store) {
  for (unsigned i = 0; i < 2 * channels + 1; ++i) empty_.push_back(std::make_unique<Batch>());
  try {
    StartThreads(channels);
  } catch (const std::system_error& error) {
    Stop();
    throw Error::FromErrno("cannot start a channel's thread", error.code().value(), "use fewer with --parallel");
  }
}

BatchWriters::~BatchWriters() {
  Stop();
}

void BatchWriters::StartThreads(unsigned channels) {
  threads_.reserve(channels);
  for (unsigned i = 0; i < channels; ++i) threads_.emplace_back([this] { Run(); });
}

void BatchWriters::Stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  work_.notify_all();
  threads_.clear();
}

template <class Condition>
void BatchWriters::WaitFor(std::unique_lock<std::mutex>& lock, const Condition& condition) {
  done_.wait(lock, [&] { return failure_ || condition(); });
  if (failure_) std::rethrow_exception(failure_);
}

std::unique_ptr<BatchWriters::Batch> BatchWriters::TakeEmpty() {
  std::unique_lock lock(mutex_);
  WaitFor(lock, [this] { return !empty_.empty(); });
  std::unique_ptr<Batch> batch = std::move(empty_.back());
  empty_.pop_back();
  return batch;
}

void BatchWriters::Write(std::unique_ptr<Batch> batch) {
  {
    const std::lock_guard lock(mutex_);
    if (failure_) std::rethrow_exception(failure_);
    queue_.push_back(std::move(batch));
  }
  work_.notify_one();
}

void BatchWriters::Settle() {
  std::unique_lock lock(mutex_);
  ++settle_round_;
  settling_ = threads_.size();
  work_.notify_all();
  WaitFor(lock, [this] { return settling_ == 0; });
}

void BatchWriters::Run() noexcept {
  try {
    const std::unique_ptr<PageChannel> channel = store_.OpenChannel();
    std::uint64_t settled = 0;
    while (std::optional<Job> job = NextJob(settled)) {
      if (std::unique_ptr<Batch> batch = std::move(*job)) {
        WriteBatch(*batch, *channel);
        TakeBack(std::move(batch));
      } else {
        channel->Settle();
        ++settled;
        NoteSettled();
      }
    }
  } catch (...) {
    NoteFailure(std::current_exception());
  }
}

// Nothing is given to Write while Settle waits: a thread that finds the queue empty then has had its last batch.
std::optional<BatchWriters::Job> BatchWriters::NextJob(std::uint64_t settled) {
  std::unique_lock lock(mutex_);
  work_.wait(lock, [&] { return stopping_ || !queue_.empty() || settled < settle_round_; });
  if (stopping_) return std::nullopt;
  if (queue_.empty()) return Job();
  Job batch = std::move(queue_.front());
  queue_.pop_front();
  return batch;
}

void BatchWriters::TakeBack(std::unique_ptr<Batch> batch) {
  batch->pages.clear();
  batch->zeros.clear();
  {
    const std::lock_guard lock(mutex_);
    empty_.push_back(std::move(batch));
  }
  done_.notify_one();
}

void BatchWriters::NoteSettled() {
  {
    const std::lock_guard lock(mutex_);
    --settling_;
  }
  done_.notify_one();
}

void BatchWriters::NoteFailure(std::exception_ptr failure) {
  {
    const std::lock_guard lock(mutex_);
    if (!failure_) failure_ = std::move(failure);
    stopping_ = true;
  }
  work_.notify_all();
  done_.notify_one();
}

}  // namespace vmsave
