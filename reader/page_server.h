// Serves a guest its pages from an image while it runs: plays the source of QEMU's postcopy migration, from the guest's
// start to its end.
#pragma once

#include <atomic>
#include <deque>
#include <optional>
#include <vector>

#include "reader/chunk_reader.h"
#include "reader/read_options.h"
#include "reader/serving_desk.h"
#include "reader/stream_sender.h"

namespace vmsave {

struct ServeOptions {
  ReadOptions read;
  PageChecks checks = PageChecks::kOn;
  FillOptions fill;
};

// What QEMU has and wants already when the serving begins: nothing, or after a recovery.
struct ServeStart {
  std::vector<PageBitmap> received{};  // of each block, or empty
  std::vector<PageRequest> requests{};
  std::deque<WorkChunk> expected{};  // by the guest soon: to be read before the rest
  // Whether QEMU has its devices, so that the stream may end; else PageServer::LetEnd tells. QEMU takes no page behind
  // the end, but its devices wait for those that they touch while they are loaded, zero ones too.
  bool has_devices = true;
};

// Run is one thread's, everything else may be called from any. Keeps references.
class PageServer {
 public:
  // `blocks` are the image's, as QEMU has them. `requests` is the return path, with `decoder` as far as that has come;
  // reading it gives way to the interrupt that is `stop`, and so does `stream`. REQUIRES: the image has fixed offsets.
  PageServer(const Image& image, const std::vector<PostcopyBlock>& blocks, const ServeOptions& options,
             ServeStart start, ByteSink& stream, ByteSource& requests, ReturnPathDecoder& decoder,
             const Interrupt& stop);

  // Sends every present page, those first that the guest waits for, and returns once QEMU has said that it has them.
  // Returns also after `stop`. Throws Error{kFailed}: QEMU closes the connection, refuses a page, asks for what is not
  // there. Pages with a wrong checksum, and those that cannot be read, are not sent; all else goes on then.
  void Run();

  // For who waits in `requests`: throws once another part of the work has failed.
  void CheckGoesOn() const;

  // QEMU has its devices.
  void LetEnd() { desk_.LetEnd(); }

  ServingFigures figures() const { return desk_.figures(); }
  std::vector<WorkChunk> NeededFirst() const { return desk_.NeededFirst(); }
  bool HasNotedAll() const { return desk_.HasNotedAll(); }

  // Why pages cannot be sent, of the first for which that is so: Error{kDamaged} with their place, or what reading the
  // image has thrown.
  std::optional<Error> obstacle() const;

  // Whether QEMU has said that it has all pages.
  bool done() const { return done_; }

 private:
  void HearRequests();
  void Take(const PostcopyAnswer& answer);
  void ReadDemands(const FileDescriptor& pages);
  bool ReadWhole(const FileDescriptor& pages, ReadPages& read);
  void Fill(const FileDescriptor& pages);
  void FillFrom(const FileDescriptor& pages, std::deque<ReadPages>& started);
  void SendPages();
  bool IsRight(const ChunkReader::Finished& finished);
  void Note(const Error& obstacle);

  const Image& image_;
  const ServeOptions options_;
  ByteSink& stream_;
  ByteSource& requests_;
  ReturnPathDecoder& decoder_;
  const Interrupt& stop_;
  ServingDesk desk_;
  std::atomic<bool> done_ = false;
  mutable std::mutex obstacle_mutex_;
  std::optional<Error> obstacle_;
};

}  // namespace vmsave
