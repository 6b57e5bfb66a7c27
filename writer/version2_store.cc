#include <algorithm>

#include "io/channels.h"
#include "writer/complete_image.h"
#include "writer/page_store.h"
#include "writer/stretch_writer.h"
#include "writer/version2_file.h"

namespace vmsave {
namespace {

constexpr std::byte kZeroFill{0};
constexpr std::size_t kMaxRecordBytes = 8 + kPageBytes;  // of one that continues the one before
static_assert(kMaxRecordHeadBytes + PageChannel::kMaxPages * kMaxRecordBytes <= StretchWriter::kMaxStretchBytes);

class Version2Store : public PageStore {
 public:
  Version2Store(NewFile& file, ArrivingGuest guest, const WriteOptions& options)
      : file_(file), guest_(std::move(guest)), options_(options), writer_(file) {
    for (const BlockShape& block : guest_.blocks) present_.emplace_back(block.length.value() / kPageBytes);
    ByteWriter head;
    head.Append(EncodeBeforeStream(guest_.description, guest_.was_running));
    AppendLegacyHead(head, guest_.frame, guest_.blocks);
    const std::unique_ptr<IoEngine> engine = MakeChannelEngine();
    writer_.Append(head.Take(), *engine);
    writer_.Settle(*engine);
  }

  std::unique_ptr<PageChannel> OpenChannel() override;
  WriteTotals Complete(const StreamFrame& frame, std::span<const std::byte> device_state, Progress& progress,
                       const Interrupt& interrupt) override;

  const std::string& block_name(std::size_t block) const { return guest_.blocks[block].name; }
  StretchWriter& writer() { return writer_; }

  // Room for one record of each page. The state of a page is that of its last record, in the file as in the bitmap.
  StretchWriter::Stretch ReserveRecords(std::size_t block, std::span<const PageIndex> pages, bool present);

 private:
  std::unique_ptr<IoEngine> MakeChannelEngine() const {
    return MakeEngine(options_.engine, ChannelDepth(options_.channels));
  }

  NewFile& file_;
  const ArrivingGuest guest_;
  const WriteOptions options_;
  StretchWriter writer_;
  std::mutex mutex_;
  std::vector<PageBitmap> present_;  // guarded by the mutex
};

class Version2Channel : public PageChannel {
 public:
  Version2Channel(Version2Store& store, std::unique_ptr<IoEngine> engine) : store_(store), engine_(std::move(engine)) {}

  std::span<const iovec> Place(std::size_t block, std::span<const PageIndex> pages) override;
  void Commit() override { store_.writer().Commit(placed_, *engine_); }
  void Zero(std::size_t block, std::span<const PageIndex> pages) override;
  void Settle() override { store_.writer().Settle(*engine_); }

 private:
  void PutZeroRecords(std::size_t block, std::span<const PageIndex> pages);

  Version2Store& store_;
  std::unique_ptr<IoEngine> engine_;
  StretchWriter::Stretch placed_;
  std::vector<iovec> pieces_;
};

std::span<const iovec> Version2Channel::Place(std::size_t block, std::span<const PageIndex> pages) {
  placed_ = store_.ReserveRecords(block, pages, true);
  pieces_.clear();
  std::size_t at = 0;
  for (const PageIndex page : pages) {
    const RecordHead head = MakeRecordHead(store_.block_name(block), page, true, at != 0);
    placed_.Put(at, head.bytes());
    placed_.AppendPieces(at + head.size, kPageBytes, pieces_);
    at += head.size + kPageBytes;
  }
  return pieces_;
}

void Version2Channel::Zero(std::size_t block, std::span<const PageIndex> pages) {
  while (!pages.empty()) {
    const std::size_t count = std::min(pages.size(), kMaxPages);
    PutZeroRecords(block, pages.first(count));
    pages = pages.subspan(count);
  }
}

void Version2Channel::PutZeroRecords(std::size_t block, std::span<const PageIndex> pages) {
  StretchWriter::Stretch records = store_.ReserveRecords(block, pages, false);
  std::size_t at = 0;
  for (const PageIndex page : pages) {
    const RecordHead head = MakeRecordHead(store_.block_name(block), page, false, at != 0);
    records.Put(at, head.bytes());
    records.Put(at + head.size, std::span(&kZeroFill, 1));
    at += head.size + 1;
  }
  store_.writer().Commit(records, *engine_);
}

std::unique_ptr<PageChannel> Version2Store::OpenChannel() {
  return std::make_unique<Version2Channel>(*this, MakeChannelEngine());
}

StretchWriter::Stretch Version2Store::ReserveRecords(std::size_t block, std::span<const PageIndex> pages,
                                                     bool present) {
  const std::size_t name_length = block_name(block).size();
  const std::uint64_t length =
      PageRecordLength(name_length, present, false) + (pages.size() - 1) * PageRecordLength(name_length, present, true);
  const std::lock_guard lock(mutex_);
  const StretchWriter::Stretch stretch = writer_.Reserve(length);
  for (const PageIndex page : pages) {
    if (present) {
      present_[block].Set(page.value());
    } else {
      present_[block].Clear(page.value());
    }
  }
  return stretch;
}

WriteTotals Version2Store::Complete(const StreamFrame& frame, std::span<const std::byte> device_state,
                                    Progress& progress, const Interrupt& interrupt) {
  interrupt.Check();
  ByteWriter tail;
  AppendLegacyTail(tail, frame, device_state);
  const std::vector<std::byte> bytes = tail.Take();
  progress.Begin("completing", ByteCount{bytes.size()});
  const std::unique_ptr<IoEngine> engine = MakeChannelEngine();
  writer_.Append(bytes, *engine);
  const ByteCount file_length = writer_.Finish(*engine);
  progress.Advance(ByteCount{bytes.size()});
  interrupt.Check();
  CompleteImage(file_, progress);
  return CountTotals(present_, file_length);
}

}  // namespace

std::unique_ptr<PageStore> MakeVersion2Store(NewFile& file, ArrivingGuest guest, const WriteOptions& options) {
  return std::make_unique<Version2Store>(file, std::move(guest), options);
}

}  // namespace vmsave
