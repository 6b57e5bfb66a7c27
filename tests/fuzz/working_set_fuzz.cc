// What lies beside an image as its working set, with its checksum right or wrong.
#include <algorithm>
#include <vector>

#include "format/bytes.h"
#include "format/page_hash.h"
#include "format/working_set.h"
#include "tests/fuzz/fuzz_target.h"

namespace vmsave {
namespace {

constexpr std::size_t kHashBytes = 8;

void Seal(std::vector<std::byte>& set) {
  if (set.size() < kHashBytes) return;
  const std::span<std::byte> all(set);
  PutLittleEndian(all.last(kHashBytes), Xxh3(all.first(set.size() - kHashBytes)));
}

void Read(std::span<const std::byte> bytes) {
  WorkingSet set;
  if (!Takes([&] { set = DecodeWorkingSet(bytes, "fuzz"); })) return;
  Require(set.runs.size() <= kMaxChunkRuns);
  Require(std::ranges::equal(EncodeWorkingSet(set), bytes));
}

}  // namespace
}  // namespace vmsave

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const vmsave::FuzzInput input(data, size);
  std::vector<std::byte> bytes(input.bytes.begin(), input.bytes.end());
  if (input.choice % 2 == 0) vmsave::Seal(bytes);
  vmsave::Read(bytes);
  return 0;
}
