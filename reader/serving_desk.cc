#include "reader/serving_desk.h"

#include <algorithm>

namespace vmsave {
namespace {

// What is read at once before anybody asks: as much as keeps a disk busy with several in flight, and no more, since who
// asks waits for those.
constexpr std::uint64_t kFillPages = 64;
constexpr std::size_t kMostDemandedInMemory = 64;  // chunks that are read, and that QEMU does not take

// A guest that asks again within this time is taken to go on asking. The filling leaves it the disk then, but for one
// read that begins once in that time: so it comes to an end also with a guest that asks without one.
constexpr std::chrono::milliseconds kAsksAgainWithin{1};
// Reads of what it is expected to ask for, at once beside what it asked for.
constexpr std::size_t kMostBesideDemands = 4;

// At least `least` pages, and a host page of any block.
std::uint64_t HostPageOr(std::uint64_t least, const std::vector<PostcopyBlock>& blocks) {
  for (const PostcopyBlock& block : blocks) least = std::max(least, block.pages_per_host_page());
  return least;
}

// Whole host pages: others cannot be sent.
std::deque<WorkChunk> InHostPages(const std::deque<WorkChunk>& chunks, const std::vector<PostcopyBlock>& blocks) {
  std::deque<WorkChunk> whole;
  for (const WorkChunk& chunk : chunks) {
    const std::uint64_t step = blocks[chunk.block].pages_per_host_page();
    if (step <= kPagesPerChunk) {
      whole.push_back(chunk);
      continue;
    }
    for (std::uint64_t first = chunk.first_page / step * step; first < chunk.end_page; first += step) {
      const WorkChunk page{chunk.block, first, first + step};
      if (whole.empty() || whole.back() != page) whole.push_back(page);
    }
  }
  return whole;
}

}  // namespace

ServingDesk::ServingDesk(const Image& image, const std::vector<PostcopyBlock>& blocks, const FillOptions& fill,
                         std::size_t fill_buffers, std::vector<PageBitmap> received,
                         const std::deque<WorkChunk>& expected)
    : image_(image),
      blocks_(blocks),
      fill_(fill),
      sent_(std::move(received)),
      order_(PlanWork(blocks, HostPageOr(kWorkPages, blocks)), InHostPages(expected, blocks)),
      next_demands_(
          [this](std::size_t block, std::uint64_t from, std::uint64_t to) { return NextLeft(block, from, to); }) {
  if (sent_.empty()) {
    for (const PostcopyBlock& block : blocks_) sent_.emplace_back(block.pages());
  }
  for (const PostcopyBlock& block : blocks_) noted_.emplace_back(ChunkCount(block.length));
  for (std::size_t block = 0; block < blocks_.size(); ++block) {
    pages_left_ += Present(block).CountNotIn(sent_[block], 0, blocks_[block].pages());
  }
  figures_.left = PagesToBytes(PageIndex{pages_left_});
  const std::uint64_t fill_bytes = HostPageOr(kFillPages, blocks) * kPageBytes;
  for (std::size_t i = 0; i < fill_buffers; ++i) free_buffers_.emplace_back(fill_bytes);
}

// What is read for one question: what one hash covers, or a whole host page where that is longer.
std::uint64_t ServingDesk::DemandPages(std::size_t block) const {
  return std::max(kPagesPerChunk, blocks_[block].pages_per_host_page());
}

WorkChunk ServingDesk::ChunkAround(std::size_t block, std::uint64_t page) const {
  const std::uint64_t pages = DemandPages(block);
  const std::uint64_t first = page / pages * pages;
  return {block, first, std::min(first + pages, blocks_[block].pages())};
}

bool ServingDesk::IsPresent(std::size_t block, std::uint64_t host_page) const {
  const std::uint64_t end = host_page + blocks_[block].pages_per_host_page();
  return Present(block).NextPresent(host_page, end).has_value();
}

const PageBitmap& ServingDesk::Present(std::size_t block) const {
  return image_.contents().blocks[block].present;
}

void ServingDesk::Ask(const PageRequest& request) {
  const std::lock_guard lock(mutex_);
  const std::size_t block = request.block;
  const std::uint64_t page = request.pages.first;
  const Wanted wanted{page, Clock::now()};
  const bool is_present = IsPresent(block, page);
  const WorkChunk chunk = ChunkAround(block, page);
  if (is_present) NoteNeeded(chunk, wanted.since);
  if (sent_[block].Test(page)) return;  // it is on its way
  if (!is_present) {
    for (std::uint64_t i = 0; i < blocks_[block].pages_per_host_page(); ++i) sent_[block].Set(page + i);
    zeros_.emplace_back(block, wanted);
    return something_to_send_.notify_one();
  }
  const auto [entry, is_new] = wanted_.try_emplace({block, chunk.first_page});
  if (std::ranges::find(entry->second, page, &Wanted::host_page) != entry->second.end()) return;
  entry->second.push_back(wanted);
  order_.Prefer(block, page);
  if (!is_new) return;
  last_asked_ = wanted.since;
  demands_.push_back(chunk);
  demand_came_.notify_one();
  if (fill_.on) LookAhead(chunk, wanted.since);
}

void ServingDesk::LookAhead(const WorkChunk& asked, Clock::time_point when) {
  const NextDemands::Foresight seen = next_demands_.After(asked);
  if (seen.passed) NotePassed(*seen.passed, when);
  if (!seen.ahead) return;
  order_.Expect(*seen.ahead);
  fill_may_begin_.notify_all();
}

// The guest would have asked for it, had it not come before.
void ServingDesk::NotePassed(const WorkChunk& passed, Clock::time_point when) {
  for (std::uint64_t page = passed.first_page; page < passed.end_page;) {
    const WorkChunk chunk = ChunkAround(passed.block, page);
    if (Present(chunk.block).NextPresent(chunk.first_page, chunk.end_page)) NoteNeeded(chunk, when);
    page = chunk.end_page;
  }
}

std::optional<WorkChunk> ServingDesk::NextLeft(std::size_t block, std::uint64_t from, std::uint64_t to) const {
  const PageBitmap& present = Present(block);
  const std::optional<std::uint64_t> page = present.NextNotIn(sent_[block], from, std::min(to, present.pages()));
  if (!page) return std::nullopt;
  return ChunkAround(block, *page);
}

void ServingDesk::NoteNeeded(const WorkChunk& chunk, Clock::time_point when) {
  const std::uint64_t number = chunk.first_page / kPagesPerChunk;
  if (when - start_ >= fill_.noted || noted_[chunk.block].Test(number)) return;
  noted_[chunk.block].Set(number);
  needed_first_.push_back(chunk);
}

std::optional<WorkChunk> ServingDesk::TakeDemand() {
  std::unique_lock lock(mutex_);
  demand_came_.wait(
      lock, [&] { return closed_ || (!demands_.empty() && demanded_.size() + being_read_ < kMostDemandedInMemory); });
  if (closed_) return std::nullopt;
  const WorkChunk chunk = demands_.front();
  demands_.pop_front();
  ++being_read_;
  return chunk;
}

std::optional<ReadPages> ServingDesk::TakeFill(bool wait) {
  std::unique_lock lock(mutex_);
  while (!closed_ && pages_left_ > 0) {
    const Clock::time_point now = Clock::now();
    if (!free_buffers_.empty() && now >= fill_not_before_ && !IsDiskForDemands()) {
      const bool only_expected = MustGiveWay(now);
      if (const std::optional<WorkChunk> chunk = NextUnsent(only_expected)) return BeginFill(*chunk, now);
      if (!only_expected) return std::nullopt;
    }
    if (!wait) return std::nullopt;
    if (free_buffers_.empty() || one_looks_again_) {
      fill_may_begin_.wait(lock);
    } else {
      one_looks_again_ = true;
      fill_may_begin_.wait_until(lock, now < fill_not_before_ ? fill_not_before_ : now + kAsksAgainWithin);
      one_looks_again_ = false;
    }
  }
  return std::nullopt;
}

ReadPages ServingDesk::BeginFill(const WorkChunk& chunk, Clock::time_point now) {
  KeepToRate(chunk);
  ReadPages job{chunk, std::move(free_buffers_.back())};
  free_buffers_.pop_back();
  fill_began_ = now;
  ++fill_being_read_;
  fill_may_begin_.notify_one();
  return job;
}

bool ServingDesk::IsDiskForDemands() const {
  return (!demands_.empty() || being_read_ > 0) && fill_being_read_ >= kMostBesideDemands;
}

// What the guest is expected to ask for does not: with a guest that asks all the time it would come too late.
bool ServingDesk::MustGiveWay(Clock::time_point now) const {
  const bool is_asking = !demands_.empty() || being_read_ > 0 || now < last_asked_ + kAsksAgainWithin;
  return is_asking && (fill_being_read_ > 0 || now < fill_began_ + kAsksAgainWithin);
}

void ServingDesk::KeepToRate(const WorkChunk& chunk) {
  if (!fill_.rate) return;
  const PageBitmap& present = Present(chunk.block);
  const auto bytes = static_cast<double>(present.CountSet(chunk.first_page, chunk.end_page) * kPageBytes);
  const std::chrono::duration<double> time(bytes / static_cast<double>(fill_.rate->value()));
  fill_not_before_ = std::max(fill_not_before_, Clock::now()) + std::chrono::duration_cast<Clock::duration>(time);
}

std::optional<WorkChunk> ServingDesk::NextUnsent(bool only_expected) {
  while (!only_expected || order_.IsNextExpected()) {
    const std::optional<WorkChunk> chunk = order_.Next();
    if (!chunk) return std::nullopt;
    if (const auto part = FirstUnsentPart(*chunk)) return part;
  }
  return std::nullopt;
}

// The rest is kept for the next time.
std::optional<WorkChunk> ServingDesk::FirstUnsentPart(const WorkChunk& chunk) {
  const std::optional<WorkChunk> left = NextLeft(chunk.block, chunk.first_page, chunk.end_page);
  if (!left) return std::nullopt;
  const std::uint64_t step = DemandPages(chunk.block);
  const std::uint64_t first = std::max(left->first_page, chunk.first_page);
  const std::uint64_t most = std::min(chunk.end_page, first + std::max(kFillPages, step));
  std::uint64_t end = std::min(left->end_page, chunk.end_page);
  while (end < most && NextLeft(chunk.block, end, std::min(end + step, most))) end = std::min(end + step, most);
  if (end < chunk.end_page) order_.PutBack({chunk.block, end, chunk.end_page});
  return WorkChunk{chunk.block, first, end};
}

void ServingDesk::PutDemanded(ReadPages read) {
  const std::lock_guard lock(mutex_);
  --being_read_;
  demanded_.push_back(std::move(read));
  something_to_send_.notify_one();
}

void ServingDesk::PutFilled(ReadPages read) {
  const std::lock_guard lock(mutex_);
  --fill_being_read_;
  filled_.push_back(std::move(read));
  something_to_send_.notify_one();
}

void ServingDesk::DropDemanded() {
  const std::lock_guard lock(mutex_);
  --being_read_;
}

void ServingDesk::DropFilled(ReadPages read) {
  const std::lock_guard lock(mutex_);
  --fill_being_read_;
  GiveBack(std::move(read.buffer));
}

void ServingDesk::GiveBack(AlignedBuffer buffer) {
  free_buffers_.push_back(std::move(buffer));
  fill_may_begin_.notify_one();
}

std::optional<PagesToSend> ServingDesk::NextToSend() {
  std::unique_lock lock(mutex_);
  while (true) {
    NoteLastIsSent();
    something_to_send_.wait(
        lock, [&] { return IsAtEnd() || !zeros_.empty() || !demanded_.empty() || fill_now_ || !filled_.empty(); });
    if (IsAtEnd()) {
      fill_may_begin_.notify_all();
      return std::nullopt;
    }
    PagesToSend next = !zeros_.empty() ? ZeroPages() : !demanded_.empty() ? DemandedPages() : SliceOfFill();
    awaited_since_ = next.awaited_since;
    if (next.pages.empty()) continue;  // all of them had been sent before
    const ByteCount bytes = PagesToBytes(PageIndex{next.pages.size()});
    (next.demanded ? figures_.demanded : figures_.filled) += bytes;
    return next;
  }
}

void ServingDesk::NoteLastIsSent() {
  const Clock::time_point now = Clock::now();
  for (const Clock::time_point since : awaited_since_) {
    figures_.latency.Add(std::chrono::duration_cast<LatencyCount::Duration>(now - since));
  }
  figures_.demands += awaited_since_.size();
  figures_.left = PagesToBytes(PageIndex{pages_left_});
  awaited_since_.clear();
}

PagesToSend ServingDesk::ZeroPages() {
  const auto [block, wanted] = zeros_.front();
  zeros_.pop_front();
  PagesToSend zero{.block = block, .demanded = true, .awaited_since = {wanted.since}};
  for (std::uint64_t i = 0; i < blocks_[block].pages_per_host_page(); ++i) {
    zero.pages.emplace_back(wanted.host_page + i);
  }
  return zero;
}

// What the guest waits for, and then the rest of what was read with it.
PagesToSend ServingDesk::DemandedPages() {
  demanded_now_ = std::move(demanded_.front());
  demanded_.pop_front();
  demand_came_.notify_one();
  const WorkChunk& chunk = demanded_now_->chunk;
  PagesToSend next{.block = chunk.block, .from = &*demanded_now_, .demanded = true};
  const auto wanted = wanted_.extract({chunk.block, chunk.first_page});
  for (const Wanted& page : wanted.mapped()) {
    Claim(page.host_page, next);
    next.awaited_since.push_back(page.since);
  }
  const std::uint64_t step = blocks_[chunk.block].pages_per_host_page();
  for (std::uint64_t page = chunk.first_page; page < chunk.end_page; page += step) Claim(page, next);
  return next;
}

PagesToSend ServingDesk::SliceOfFill() {
  if (!fill_now_) {
    fill_now_ = std::move(filled_.front());
    filled_.pop_front();
    slice_from_ = fill_now_->chunk.first_page;
  }
  const WorkChunk& chunk = fill_now_->chunk;
  PagesToSend next{.block = chunk.block, .from = &*fill_now_};
  const std::uint64_t step = blocks_[chunk.block].pages_per_host_page();
  const std::uint64_t end = std::min(slice_from_ + DemandPages(chunk.block), chunk.end_page);
  for (; slice_from_ < end; slice_from_ += step) Claim(slice_from_, next);
  if (next.pages.empty() && slice_from_ >= chunk.end_page) {
    GiveBack(std::move(fill_now_->buffer));
    fill_now_.reset();
  }
  return next;
}

// Nothing of one that was claimed before, or that has no present page.
void ServingDesk::Claim(std::uint64_t host_page, PagesToSend& claimed) {
  PageBitmap& sent = sent_[claimed.block];
  if (sent.Test(host_page) || !IsPresent(claimed.block, host_page)) return;
  const PageBitmap& present = image_.contents().blocks[claimed.block].present;
  const std::uint64_t end = host_page + blocks_[claimed.block].pages_per_host_page();
  pages_left_ -= present.CountSet(host_page, end);
  for (std::uint64_t page = host_page; page < end; ++page) {
    sent.Set(page);
    claimed.pages.emplace_back(page);
  }
}

ServingFigures ServingDesk::figures() const {
  const std::lock_guard lock(mutex_);
  return figures_;
}

std::vector<WorkChunk> ServingDesk::NeededFirst() const {
  const std::lock_guard lock(mutex_);
  return needed_first_;
}

bool ServingDesk::HasNotedAll() const {
  return Clock::now() - start_ >= fill_.noted;
}

void ServingDesk::LetEnd() {
  const std::lock_guard lock(mutex_);
  may_end_ = true;
  something_to_send_.notify_all();
}

bool ServingDesk::IsComplete() const {
  const std::lock_guard lock(mutex_);
  return IsDone();
}

void ServingDesk::Close() {
  const std::lock_guard lock(mutex_);
  closed_ = true;
  demand_came_.notify_all();
  fill_may_begin_.notify_all();
  something_to_send_.notify_all();
}

bool ServingDesk::closed() const {
  const std::lock_guard lock(mutex_);
  return closed_;
}

}  // namespace vmsave
