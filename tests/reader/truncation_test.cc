// Images cut off at many lengths: none may be taken for whole, and none may bring a reader down.
#include <gtest/gtest.h>

#include <algorithm>
#include <iostream>
#include <random>
#include <set>

#include "reader/verify.h"
#include "tests/reader/image_copies.h"
#include "tests/reader/image_map.h"
#include "tests/scratch_directory.h"

namespace vmsave {
namespace {

constexpr int kRandomLengths = 500;

// Of the others, the readers tell where the parts are.
bool IsMapped(Copy copy) {
  return copy == Copy::kVersion2 || copy == Copy::kVersion3;
}

class TruncationTest : public testing::TestWithParam<Copy> {
 protected:
  // Around each edge, the byte in front of it, itself and the one behind it.
  std::set<std::uint64_t, std::greater<>> Lengths() const {
    const Image image(path_);
    const std::uint64_t whole = image.file_length().value();
    std::vector<std::uint64_t> edges{0, 4, 8, 16, 20, 36, 40, 48, 56, 64, 72, 80, kSaveHeaderBytes};
    edges.insert(edges.end(), {image.stream_start().value(), image.stream_end().value(), whole});
    for (const StreamBlock& block : image.contents().blocks) AddBlock(block, edges);
    if (IsMapped(GetParam())) AddParts(edges);
    std::set<std::uint64_t, std::greater<>> lengths;
    for (const std::uint64_t edge : edges) lengths.insert({edge - std::min<std::uint64_t>(edge, 1), edge, edge + 1});
    for (std::uint64_t i = 0; i < 200; ++i) lengths.insert(image.stream_start().value() + i);
    for (std::uint64_t i = 1; i < 150; ++i) lengths.insert(whole - i);
    std::mt19937_64 random(5);
    for (int i = 0; i < kRandomLengths; ++i) lengths.insert(random() % whole);
    lengths.erase(lengths.begin(), lengths.upper_bound(whole));
    lengths.erase(whole);
    return lengths;
  }

  static void AddBlock(const StreamBlock& block, std::vector<std::uint64_t>& edges) {
    if (!block.mapped_ram) return;
    const std::uint64_t bitmap = block.mapped_ram->bitmap_offset.value();
    const std::uint64_t pages = block.mapped_ram->pages_offset.value();
    edges.insert(edges.end(), {bitmap - kMappedRamHeaderBytes, bitmap, bitmap + BitmapBytes(block.pages()), pages,
                               pages + kPageBytes, pages + block.length.value()});
  }

  void AddParts(std::vector<std::uint64_t>& edges) const {
    const std::vector<std::byte> image = ReadWholeFile(path_);
    const ImageMap map(image);
    for (const ImagePart& part : map.parts()) edges.push_back(part.begin);
  }

  // "refused", or why not.
  std::string Outcome() const {
    try {
      const Image image(path_);
      VerifyMetadata(image);
      Progress progress;
      if (!Verify(image, {}, progress, Interrupt()).damage.empty()) return "refused";
    } catch (const Error& error) {
      return error.kind() == ErrorKind::kDamaged ? "refused" : error.what();
    } catch (const std::exception& error) {
      return std::string("not an Error: ") + error.what();
    }
    return "accepted";
  }

  ScratchDirectory directory_;
  std::string path_ = directory_.Path("vm.sav");
};

TEST_P(TruncationTest, IsNoticedAtEveryLength) {
  const SmallGuest guest({{"pc.ram", 100}, {"pc.bios", 1}, {"vga.vram", 20}});
  WriteCopy(path_, guest, GetParam());
  ASSERT_EQ(Outcome(), "accepted");
  const auto lengths = Lengths();
  for (const std::uint64_t length : lengths) {  // from the longest to the shortest, in one file
    Truncate(path_, length);
    ASSERT_EQ(Outcome(), "refused") << "at a length of " << length;
  }
  RecordProperty("lengths", std::to_string(lengths.size()));
  std::cout << "[          ] lengths: " << lengths.size() << ", none accepted\n";
}

INSTANTIATE_TEST_SUITE_P(Copies, TruncationTest, testing::ValuesIn(kAllCopies),
                         [](const auto& shown) { return CopyName(shown.param); });
INSTANTIATE_TEST_SUITE_P(Compressed, TruncationTest, testing::Values(Copy::kGzip, Copy::kBzip2, Copy::kXz, Copy::kLzop),
                         [](const auto& shown) { return CopyName(shown.param); });

}  // namespace
}  // namespace vmsave
