#include "tests/fuzz/image_acts.h"

#include <array>

#include "convert/convert.h"
#include "convert/extract.h"
#include "qemu/guest_facts.h"
#include "qemu/host_needs.h"
#include "reader/memory_loader.h"
#include "reader/stream_pages.h"
#include "reader/stream_sender.h"
#include "reader/verify.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/scratch_directory.h"

namespace vmsave {
namespace {

class NullSink final : public ByteSink {
 public:
  void Write(std::span<const iovec> pieces) override {
    for (const iovec& piece : pieces) Require(piece.iov_base != nullptr || piece.iov_len == 0);
  }
};

const ReadOptions kRead{1, EngineKind::kSync, CacheUse::kPageCache};

void Inspect(const Image& image) {
  ReadDescription(image.description());
  ReleasesWith(image.contents().frame.machine);
  image.disk_usage();
  FindMetadataDamage(image);
  Progress progress;
  if (!image.has_fixed_offsets()) WalkStream(image, kRead, progress, Interrupt());
}

void Check(const Image& image) {
  Progress progress;
  for (const std::string& damage : Verify(image, kRead, progress, Interrupt()).damage) Require(!damage.empty());
}

void Send(const Image& image) {
  NullSink sink;
  Progress progress;
  SendImage(image, sink, kRead, PageChecks::kOn, progress, Interrupt());
}

ByteCount RamOf(const Image& image) {
  ByteCount ram;
  for (const StreamBlock& block : image.contents().blocks) ram += block.length;
  return ram;
}

void Load(const Image& image) {
  constexpr ByteCount kMost{std::uint64_t{64} << 20};  // a guest's RAM is there before it is loaded
  if (RamOf(image) > kMost) return;
  std::vector<MemoryMapping> memory;
  std::vector<LoadTarget> targets;
  for (const StreamBlock& block : image.contents().blocks) {
    memory.push_back(MemoryMapping::Anonymous(block.length));
    targets.push_back({memory.back().bytes(), nullptr, {}});
  }
  Progress progress;
  const LoadedRam loaded = LoadImage(image, targets, kRead, PageChecks::kOff, progress, Interrupt());
  std::vector<BlockMemory> blocks;
  for (const LoadTarget& target : targets) blocks.push_back(target.memory);
  NullSink sink;
  SendFromMemory(loaded.contents, blocks, loaded.device_state, sink);
}

std::string ScratchPath() {
  static const ScratchDirectory directory(std::filesystem::temp_directory_path());
  return directory.Path("made");
}

// With the same RAM blocks, and as far as it has checksums with the right ones.
void RequireWhole(const std::string& path, const Image& source) {
  const Image made(path);
  Require(std::ranges::equal(made.contents().blocks, source.contents().blocks,
                             [](const auto& a, const auto& b) { return a.name == b.name && a.length == b.length; }));
  Progress progress;
  VerifyAll(made, kRead, progress, Interrupt());
}

ConvertOptions Options(const Image& image, TargetKind to) {
  ConvertOptions options;
  options.to = to;
  options.transfer = kRead;
  if (!image.header()) options.description = "<domain/>";
  return options;
}

// A stream goes into version 2 as it is, damaged or not.
bool IsWhole(const Image& image) {
  Progress progress;
  return Succeeds([&] { VerifyAll(image, kRead, progress, Interrupt()); });
}

void ConvertTo(const Image& image, const ConvertOptions& options) {
  NewFile target(ScratchPath(), Replace::kYes, CacheUse::kPageCache);
  Progress progress;
  Convert(image, target, options, progress, Interrupt());
  target.Publish();
  if (IsWhole(image)) Require(Succeeds([&] { RequireWhole(ScratchPath(), image); }));
}

void ConvertItself(const Image& image) {
  const TargetKind to = image.kind() == ImageKind::kVersion3 ? TargetKind::kLibvirtSparse : TargetKind::kVersion3;
  Progress progress;
  ConvertInPlace(image.path(), Options(image, to), progress, Interrupt());
  Require(Succeeds([&] { Check(Image(image.path())); }));
}

void Extract(const Image& image) {
  const std::string block = image.contents().blocks.front().name;
  Progress progress;
  {
    NewFile file(ScratchPath(), Replace::kYes, CacheUse::kPageCache);
    ExtractBlock(image, block, file, kRead, PageChecks::kOff, progress, Interrupt());
  }
  NewFile core(ScratchPath(), Replace::kYes, CacheUse::kPageCache);
  ExtractElfCore(image, core, kRead, PageChecks::kOn, progress, Interrupt());
}

void Use(const Image& image, unsigned choice) {
  switch (choice % 8) {
    case 0:
      return Inspect(image);
    case 1:
      return Check(image);
    case 2:
      return Send(image);
    case 3:
      return Load(image);
    case 4:
      return ConvertTo(image, Options(image, TargetKind::kVersion2));
    case 5:
      return ConvertTo(image, Options(image, TargetKind::kVersion3));
    case 6:
      return Extract(image);
    default:
      return image.has_fixed_offsets() ? ConvertItself(image)
                                       : ConvertTo(image, Options(image, TargetKind::kLibvirtSparse));
  }
}

}  // namespace

void UseImage(const std::string& path, unsigned choice) {
  Succeeds([&] { Use(Image(path), choice); });
}

}  // namespace vmsave
