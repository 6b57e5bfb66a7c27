// What a QEMU answers that was let run before its memory is there, in whatever pieces.
#include <algorithm>

#include "format/postcopy.h"
#include "tests/fuzz/fuzz_target.h"

namespace vmsave {
namespace {

const std::vector<PostcopyBlock>& Blocks() {
  static const std::vector<PostcopyBlock> blocks{{"pc.ram", ByteCount{1 << 20}},
                                                 {"huge", ByteCount{4 << 20}, ByteCount{2 << 20}}};
  return blocks;
}

void Check(const PostcopyAnswer& answer) {
  if (const auto* request = std::get_if<PageRequest>(&answer)) {
    Require(request->block < Blocks().size());
    const PostcopyBlock& block = Blocks()[request->block];
    const std::uint64_t host = block.pages_per_host_page();
    const PageRun& run = request->pages;
    Require(run.count > 0 && run.first % host == 0 && run.count % host == 0);
    Require(run.count <= block.pages() && run.first <= block.pages() - run.count);
  } else if (const auto* received = std::get_if<ReceivedPages>(&answer)) {
    Require(received->block < Blocks().size() && received->pages.pages() == Blocks()[received->block].pages());
  }
}

void Answer(std::span<const std::byte> bytes, std::size_t piece) {
  ReturnPathDecoder decoder(Blocks());
  Succeeds([&] {
    while (!bytes.empty()) {
      const auto next = bytes.first(std::min(bytes.size(), piece));
      decoder.Feed(next);
      while (const std::optional<PostcopyAnswer> answer = decoder.Next()) Check(*answer);
      bytes = bytes.subspan(next.size());
    }
  });
}

}  // namespace
}  // namespace vmsave

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const vmsave::FuzzInput input(data, size);
  vmsave::Answer(input.bytes, std::size_t{input.choice} + 1);
  return 0;
}
