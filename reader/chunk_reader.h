// Reads the present pages of chunks from their fixed offsets, several chunks at a time, and checks them.
#pragma once

#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "format/page_hash.h"
#include "format/work_plan.h"
#include "io/io_engine.h"
#include "reader/image.h"

namespace vmsave {

enum class PageChecks { kOff, kOn };

// Pages whose hash is not the one in the integrity table: those of one hashed chunk.
struct DamagedPages {
  std::size_t block;
  PageRun pages;
};

// "pages 16-31 of RAM block pc.ram (bytes 65536-131071 of the block, at 1114112-1179647 in IMAGE)"
std::string Describe(const Image& image, const DamagedPages& damage);

// Whether any of the chunk is to be read.
bool HasPages(const Image& image, const WorkChunk& chunk);

// One thread's. Keeps references to image and descriptor.
class ChunkReader {
 public:
  // With kOn, an image without checksums is read unchecked.
  ChunkReader(const Image& image, const FileDescriptor& pages, EngineKind engine, unsigned depth, PageChecks checks);

  // Chunks that were started and not finished.
  std::size_t active() const { return active_.size(); }

  // Begins to read the present pages of the chunk to their places in `target`, which is as long as the chunk; the
  // places of absent pages are left as they are. `target` must stay valid until Finish has returned it.
  void Start(const WorkChunk& chunk, std::span<std::byte> target);

  struct Finished {
    WorkChunk chunk;
    std::span<std::byte> target;
    std::vector<DamagedPages> damage;
  };

  // Waits for the chunk that was started first. REQUIRES: active() > 0.
  Finished Finish();

 private:
  struct Active {
    WorkChunk chunk;
    std::span<std::byte> target;
    std::size_t outstanding = 0;
  };
  void WaitForOne();
  std::vector<DamagedPages> Check(const Active& active);

  const Image& image_;
  const FileDescriptor& pages_;
  bool check_;
  Xxh3Stream hash_;
  std::deque<std::unique_ptr<Active>> active_;
  std::unique_ptr<IoEngine> engine_;
};

// Throws Error{kDamaged} naming the first damage, if there is any.
void RefuseDamage(const Image& image, const std::vector<DamagedPages>& damage);

}  // namespace vmsave
