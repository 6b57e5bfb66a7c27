#include "writer/page_spreader.h"

#include <utility>

#include "format/integrity_table.h"

namespace vmsave {
namespace {

// A chunk that begins in a batch has room to end in it: its checksum is then made of one piece, without reading back.
bool HasRoom(const std::vector<PageIndex>& pages, PageIndex page) {
  const bool continues_chunk = !pages.empty() && pages.back().value() / kPagesPerChunk == page.value() / kPagesPerChunk;
  return pages.size() + (continues_chunk ? 1 : kPagesPerChunk) <= PageChannel::kMaxPages;
}

}  // namespace

bool PageSpreader::ArrivedPages::Note(PageIndex page) {
  std::uint64_t& word = words_[page.value() / 64];
  const std::uint64_t bit = std::uint64_t{1} << (page.value() % 64);
  if ((word & bit) != 0) return false;
  if (word == 0) used_.push_back(page.value() / 64);
  word |= bit;
  return true;
}

void PageSpreader::ArrivedPages::Forget() {
  for (const std::uint64_t word : used_) words_[word] = 0;
  used_.clear();
}

PageSpreader::PageSpreader(unsigned channels, StoreMaker make_store)
    : channels_(channels), make_store_(std::move(make_store)) {}

PageSpreader::~PageSpreader() = default;

void PageSpreader::OnBlocks(const StreamContents& contents) {
  for (const StreamBlock& block : contents.blocks) arrived_.emplace_back(block.pages());
  store_ = make_store_(contents);
  writers_ = std::make_unique<BatchWriters>(*store_, channels_);
}

std::span<std::byte> PageSpreader::PageTarget(std::size_t block, PageIndex page) {
  NoteArrival(block, page);
  BatchWriters::Batch& batch = BatchFor(block, page);
  const std::size_t place = batch.pages.size() * kPageBytes;
  batch.pages.push_back(page);
  return batch.bytes.bytes().subspan(place, kPageBytes);
}

void PageSpreader::OnZeroPage(std::size_t block, PageIndex page) {
  NoteArrival(block, page);
  BatchFor(block, page).zeros.push_back(page);
}

std::unique_ptr<PageStore> PageSpreader::Finish() {
  Settle();
  writers_.reset();
  return std::move(store_);
}

BatchWriters::Batch& PageSpreader::BatchFor(std::size_t block, PageIndex page) {
  if (batch_ && (batch_->block != block || !HasRoom(batch_->pages, page) || !HasRoom(batch_->zeros, page))) Send();
  if (!batch_) batch_ = writers_->TakeEmpty();
  batch_->block = block;
  return *batch_;
}

void PageSpreader::NoteArrival(std::size_t block, PageIndex page) {
  if (arrived_[block].Note(page)) return;
  Settle();
  arrived_[block].Note(page);
}

void PageSpreader::Send() {
  writers_->Write(std::move(batch_));
}

void PageSpreader::Settle() {
  if (batch_) Send();
  writers_->Settle();
  for (ArrivedPages& pages : arrived_) pages.Forget();
}

}  // namespace vmsave
