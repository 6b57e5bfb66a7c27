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

PageSpreader::PageSpreader(unsigned channels, StoreMaker make_store)
    : channels_(channels), make_store_(std::move(make_store)) {}

PageSpreader::~PageSpreader() = default;

void PageSpreader::OnBlocks(const StreamContents& contents) {
  for (const StreamBlock& block : contents.blocks) seen_.emplace_back(block.pages());
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
  if (seen_[block].Test(page.value())) Settle();
  seen_[block].Set(page.value());
}

void PageSpreader::Send() {
  writers_->Write(std::move(batch_));
}

void PageSpreader::Settle() {
  if (batch_) Send();
  writers_->Settle();
  for (PageBitmap& seen : seen_) seen = PageBitmap(seen.pages());
}

}  // namespace vmsave
