#include "reader/chunk_reader.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>

namespace vmsave {

std::string Describe(const Image& image, const DamagedPages& damage) {
  const StreamBlock& block = image.contents().blocks[damage.block];
  const std::uint64_t first = damage.pages.first * kPageBytes;
  const std::uint64_t last = first + damage.pages.count * kPageBytes - 1;
  const std::uint64_t in_file = block.mapped_ram->pages_offset.value();
  return fmt::format("pages {}-{} of RAM block {} (bytes {}-{} of the file)", damage.pages.first,
                     damage.pages.first + damage.pages.count - 1, block.name, in_file + first, in_file + last);
}

void RefuseDamage(const Image& image, const std::vector<DamagedPages>& damage) {
  if (damage.empty()) return;
  throw Error(ErrorKind::kDamaged, fmt::format("{} is damaged", image.path()),
              fmt::format("{}: wrong checksum", Describe(image, damage.front())),
              "vmimage verify lists all damage; restore from another copy");
}

bool HasPages(const Image& image, const WorkChunk& chunk) {
  const PageBitmap& present = image.contents().blocks[chunk.block].present;
  return present.NextPresent(chunk.first_page, chunk.end_page).has_value();
}

ChunkReader::ChunkReader(const Image& image, const FileDescriptor& pages, EngineKind engine, unsigned depth,
                         PageChecks checks)
    : image_(image),
      pages_(pages),
      check_(checks == PageChecks::kOn && image.integrity().has_value()),
      engine_(MakeEngine(engine, depth)) {}

void ChunkReader::Start(const WorkChunk& chunk, std::span<std::byte> target) {
  active_.push_back(std::make_unique<Active>(Active{chunk, target}));
  Active& active = *active_.back();
  const StreamBlock& block = image_.contents().blocks[chunk.block];
  auto run = block.present.NextPresent(chunk.first_page, chunk.end_page);
  for (; run; run = block.present.NextPresent(run->first + run->count, chunk.end_page)) {
    if (engine_->full()) WaitForOne();
    const std::uint64_t in_target = (run->first - chunk.first_page) * kPageBytes;
    const FileOffset offset = block.mapped_ram->pages_offset + PagesToBytes(PageIndex{run->first});
    engine_->SubmitRead(pages_, target.subspan(in_target, run->count * kPageBytes), offset,
                        std::bit_cast<RequestId>(&active));
    ++active.outstanding;
  }
}

void ChunkReader::WaitForOne() {
  --std::bit_cast<Active*>(engine_->Wait())->outstanding;
}

ChunkReader::Finished ChunkReader::Finish() {
  while (active_.front()->outstanding > 0) WaitForOne();
  const std::unique_ptr<Active> active = std::move(active_.front());
  active_.pop_front();
  return {active->chunk, active->target, check_ ? Check(*active) : std::vector<DamagedPages>{}};
}

std::vector<DamagedPages> ChunkReader::Check(const Active& active) {
  std::vector<DamagedPages> damage;
  const WorkChunk& chunk = active.chunk;
  const PageBitmap& present = image_.contents().blocks[chunk.block].present;
  const std::vector<std::uint64_t>& hashes = image_.integrity()->blocks[chunk.block].chunk_hashes;
  for (std::uint64_t first = chunk.first_page; first < chunk.end_page; first += kPagesPerChunk) {
    const std::uint64_t end = std::min(first + kPagesPerChunk, chunk.end_page);
    auto run = present.NextPresent(first, end);
    if (!run) continue;
    for (; run; run = present.NextPresent(run->first + run->count, end)) {
      hash_.Update(active.target.subspan((run->first - chunk.first_page) * kPageBytes, run->count * kPageBytes));
    }
    if (hash_.Finish() != hashes[first / kPagesPerChunk]) damage.push_back({chunk.block, {first, end - first}});
  }
  return damage;
}

}  // namespace vmsave
