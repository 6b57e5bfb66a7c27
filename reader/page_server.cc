#include "reader/page_server.h"

#include <array>

#include "io/aligned_buffer.h"
#include "io/io_priority.h"

namespace vmsave {
namespace {

constexpr unsigned kDemandReaders = 4;
// Of each filling channel. More would be read by the time that somebody asks for another page, and stand in its way.
constexpr std::size_t kChunksInFlight = 2;
constexpr std::size_t kBuffersPerChannel = 2 * kChunksInFlight;

iovec Piece(std::span<const std::byte> bytes) {
  return {const_cast<std::byte*>(bytes.data()), bytes.size()};  // iovec has no const; a sink only reads
}

// A section of its own for each: QEMU holds on to things while one is open.
class SectionSender {
 public:
  SectionSender(const Image& image, ByteSink& stream) : image_(image), stream_(stream) {
    ByteWriter head;
    AppendRamPart(head, image.contents().frame);
    head_ = head.Take();
    ByteWriter end;
    AppendRamSectionEnd(end, image.contents().frame);
    end_ = end.Take();
  }

  void Send(const PagesToSend& section) {
    static constexpr std::byte kZeroFill{0};
    const StreamBlock& block = image_.contents().blocks[section.block];
    heads_.clear();
    heads_.reserve(section.pages.size());
    pieces_.assign(1, Piece(head_));
    for (const PageIndex page : section.pages) {
      const bool present = section.from != nullptr && block.present.Test(page.value());
      heads_.push_back(MakeRecordHead(block.name, page, present, !heads_.empty()));
      pieces_.push_back(Piece(heads_.back().bytes()));
      pieces_.push_back(Piece(present ? Bytes(*section.from, page) : std::span(&kZeroFill, 1)));
    }
    pieces_.push_back(Piece(end_));
    stream_.Write(pieces_);
  }

 private:
  static std::span<const std::byte> Bytes(const ReadPages& read, PageIndex page) {
    return read.buffer.bytes().subspan((page.value() - read.chunk.first_page) * kPageBytes, kPageBytes);
  }

  const Image& image_;
  ByteSink& stream_;
  std::vector<std::byte> head_;
  std::vector<std::byte> end_;
  std::vector<RecordHead> heads_;
  std::vector<iovec> pieces_;
};

// A scheduler that goes over the disk in its order (mq-deadline) would let a demanded page wait for half a second while
// the filling goes on ahead of it. Who may not put demands first puts last what nobody waits for.
void StandBackFromDemands() {
  const bool demands_are_first = SetIoPriority(IoPriority::kFirst);
  SetIoPriority(demands_are_first ? IoPriority::kNormal : IoPriority::kLast);
}

std::size_t FillBuffers(const ServeOptions& options) {
  return options.fill.on ? kBuffersPerChannel * options.read.channels : 0;
}

}  // namespace

PageServer::PageServer(const Image& image, const std::vector<PostcopyBlock>& blocks, const ServeOptions& options,
                       ServeStart start, ByteSink& stream, ByteSource& requests, ReturnPathDecoder& decoder,
                       const Interrupt& stop)
    : image_(image),
      options_(options),
      stream_(stream),
      requests_(requests),
      decoder_(decoder),
      stop_(stop),
      desk_(image, blocks, options.fill, FillBuffers(options), std::move(start.received), start.expected) {
  if (start.has_devices) desk_.LetEnd();
  for (const PageRequest& request : start.requests) desk_.Ask(request);
}

void PageServer::Run() {
  const FileDescriptor pages = image_.OpenForPages(options_.read.cache);
  const unsigned fillers = options_.fill.on ? options_.read.channels : 0;
  const Interrupt never;
  const auto serve = [&](const ChannelContext& context) {
    try {
      if (context.channel() == 0) return HearRequests();
      if (context.channel() == 1) return SendPages();
      if (context.channel() < 2 + kDemandReaders) return ReadDemands(pages);
      Fill(pages);
    } catch (const std::exception&) {
      // The one who fails first has closed the desk, and its failure is told; others end because of that.
      const bool others_failed = desk_.closed();
      desk_.Close();
      if (!others_failed && !stop_.requested()) throw;
    }
  };
  RunChannels(2 + kDemandReaders + fillers, never, serve, [&] { desk_.Close(); });
}

void PageServer::CheckGoesOn() const {
  if (!desk_.closed() || done_) return;
  throw Error(ErrorKind::kFailed, "cannot serve the guest its memory", "another part of that has failed");
}

// Whoever hears no more sends no more.
void PageServer::HearRequests() {
  std::array<std::byte, 4096> bytes;
  while (!done_) {
    while (const std::optional<PostcopyAnswer> answer = decoder_.Next()) Take(*answer);
    if (done_) break;
    const std::size_t count = requests_.ReadSome(bytes);
    if (count == 0) {
      throw Error(ErrorKind::kFailed, "cannot serve the guest its memory", "QEMU has closed the connection");
    }
    decoder_.Feed(std::span(bytes).first(count));
  }
  desk_.Close();
}

void PageServer::Take(const PostcopyAnswer& answer) {
  if (const auto* request = std::get_if<PageRequest>(&answer)) return desk_.Ask(*request);
  if (const auto* done = std::get_if<PostcopyDone>(&answer)) {
    if (done->failed || !desk_.IsComplete()) {
      throw Error(ErrorKind::kFailed, "cannot serve the guest its memory", "QEMU gave up",
                  "QEMU's own message says why");
    }
    done_ = true;
    return;
  }
  throw Error(ErrorKind::kFailed, "cannot serve the guest its memory", "QEMU answered to what it was not asked");
}

void PageServer::ReadDemands(const FileDescriptor& pages) {
  SetIoPriority(IoPriority::kFirst);
  while (const std::optional<WorkChunk> chunk = desk_.TakeDemand()) {
    ReadPages read{*chunk, AlignedBuffer(chunk->length().value())};
    if (ReadWhole(pages, read)) {
      desk_.PutDemanded(std::move(read));
    } else {
      desk_.DropDemanded();
    }
  }
}

bool PageServer::ReadWhole(const FileDescriptor& pages, ReadPages& read) {
  try {
    ChunkReader reader(image_, pages, EngineKind::kSync, 1, options_.checks);
    reader.Start(read.chunk, read.buffer.bytes());
    return IsRight(reader.Finish());
  } catch (const Error& error) {
    Note(error);
    return false;
  }
}

// A reader that has failed is of no more use; the guest is served on what it asks for.
void PageServer::Fill(const FileDescriptor& pages) {
  StandBackFromDemands();
  std::deque<ReadPages> started;
  try {
    FillFrom(pages, started);
  } catch (const Error& error) {
    Note(error);
    for (ReadPages& read : started) desk_.DropFilled(std::move(read));
  }
}

void PageServer::FillFrom(const FileDescriptor& pages, std::deque<ReadPages>& started) {
  ChunkReader reader(image_, pages, options_.read.engine, ReaderDepth(options_.read.channels), options_.checks);
  while (true) {
    if (reader.active() < kChunksInFlight) {
      if (std::optional<ReadPages> job = desk_.TakeFill(/*wait=*/reader.active() == 0)) {
        started.push_back(*std::move(job));
        const WorkChunk& chunk = started.back().chunk;
        reader.Start(chunk, started.back().buffer.bytes().first(chunk.length().value()));
        continue;
      }
    }
    if (reader.active() == 0) return;
    const bool right = IsRight(reader.Finish());
    ReadPages read = std::move(started.front());
    started.pop_front();
    if (right) {
      desk_.PutFilled(std::move(read));
    } else {
      desk_.DropFilled(std::move(read));
    }
  }
}

void PageServer::SendPages() {
  SectionSender sender(image_, stream_);
  while (const std::optional<PagesToSend> section = desk_.NextToSend()) sender.Send(*section);
  if (desk_.closed() || !desk_.IsComplete()) return;
  ByteWriter end;
  AppendPostcopyEnd(end, image_.contents().frame);
  stream_.Write(end.Take());
}

bool PageServer::IsRight(const ChunkReader::Finished& finished) {
  if (finished.damage.empty()) return true;
  Note(Error(ErrorKind::kDamaged, Describe(image_, finished.damage.front()), "wrong checksum"));
  return false;
}

void PageServer::Note(const Error& obstacle) {
  const std::lock_guard lock(obstacle_mutex_);
  if (!obstacle_) obstacle_ = obstacle;
}

std::optional<Error> PageServer::obstacle() const {
  const std::lock_guard lock(obstacle_mutex_);
  return obstacle_;
}

}  // namespace vmsave
