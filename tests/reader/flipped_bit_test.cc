// One bit of an image is wrong, wherever it may be. In version 3 it is found, and its place is named; in version 2 it
// brings no reader down.
#include <gtest/gtest.h>

#include <algorithm>
#include <iostream>
#include <iterator>
#include <map>
#include <memory>
#include <random>
#include <regex>
#include <set>

#include "reader/verify.h"
#include "tests/reader/image_copies.h"
#include "tests/reader/image_map.h"
#include "tests/scratch_directory.h"

namespace vmsave {
namespace {

using Kind = ImagePart::Kind;
using Area = ImagePart::Area;

constexpr std::uint64_t kFlipsInALongField = 64;
constexpr std::size_t kPagesDamaged = 2000;
constexpr std::size_t kPagesDamagedAtOnce = 20;

// What `vmimage verify` prints of the image.
std::vector<std::string> DamageOf(const std::string& path) {
  try {
    Progress progress;
    return Verify(Image(path), {}, progress, Interrupt()).damage;
  } catch (const Error& error) {
    if (error.kind() == ErrorKind::kDamaged) return {error.what()};
    throw;
  }
}

// What `vmrestore --verify full` refuses the image with; empty where it does not.
std::string RefusalOf(const std::string& path) {
  try {
    Progress progress;
    VerifyAll(Image(path), {}, progress, Interrupt());
    return "";
  } catch (const Error& error) {
    if (error.kind() == ErrorKind::kDamaged) return error.what();
    throw;
  }
}

// Anything thrown that is no Error fails the test.
bool IsRefused(const std::string& path) {
  try {
    Progress progress;
    return !Verify(Image(path), {}, progress, Interrupt()).damage.empty();
  } catch (const Error&) {
    return true;
  }
}

// "... (bytes 4096-8191 of the file) ..."
bool NamesByte(const std::string& message, std::uint64_t byte) {
  static const std::regex kPlace(R"(\(bytes (\d+)-(\d+) of the file\))");
  std::smatch found;
  return std::regex_search(message, found, kPlace) && std::stoull(found[1]) <= byte && byte <= std::stoull(found[2]);
}

// Where a field's value is told to be wrong by itself: what it is called then.
std::string_view WordsFor(const std::string& field) {
  static const std::map<std::string_view, std::string_view> kWords{{"magic", "neither a save image nor a QEMU stream"},
                                                                   {"version", "version"},
                                                                   {"data_len", "description"},
                                                                   {"was_running", "was_running field"},
                                                                   {"format", "format"},
                                                                   {"cookie_offset", "cookie"},
                                                                   {"ext_magic", "version 3's fields"},
                                                                   {"features_incompat", "features"},
                                                                   {"reserved", "reserved field"}};
  const auto found = kWords.find(field);
  return found == kWords.end() ? "header or description" : found->second;
}

bool NamesPlace(const std::string& message, const ImagePart& part, std::uint64_t byte) {
  const auto has = [&](std::string_view words) { return message.find(words) != std::string::npos; };
  switch (part.area) {
    case Area::kHeader:
      return NamesByte(message, byte) || has(WordsFor(part.name)) || has("its header") || has("version 3's fields");
    case Area::kStream:
      return NamesByte(message, byte);
    case Area::kTable:
      return has("integrity table of");
  }
  return false;
}

// For whoever wants to know what was tried.
void Tell(const std::string& key, std::uint64_t value) {
  testing::Test::RecordProperty(key, std::to_string(value));
  std::cout << "[          ] " << key << ": " << value << "\n";
}

std::vector<const ImagePart*> OfKind(const std::vector<ImagePart>& parts, Kind kind) {
  std::vector<const ImagePart*> found;
  for (const ImagePart& part : parts) {
    if (part.kind == kind) found.push_back(&part);
  }
  return found;
}

struct BitPlace {
  std::uint64_t byte;
  unsigned bit;
};

// Every bit of a short field; of a long one (texts, bitmaps, device state) the first and the last byte, and others.
std::vector<BitPlace> BitsToFlip(const ImagePart& part, std::mt19937_64& random) {
  const std::uint64_t length = part.end - part.begin;
  std::vector<BitPlace> places;
  if (length <= kFlipsInALongField) {
    for (unsigned bit = 0; bit < 8 * length; ++bit) places.push_back({part.begin + bit / 8, bit % 8});
    return places;
  }
  for (std::uint64_t i = 0; i < kFlipsInALongField; ++i) places.push_back({part.begin + random() % length, 0});
  places.push_back({part.begin, 0});
  places.push_back({part.end - 1, 0});
  for (BitPlace& place : places) place.bit = static_cast<unsigned>(random() % 8);
  return places;
}

// As a line of the report names them.
struct NamedPages {
  std::string block;
  std::uint64_t first = 0;
  std::uint64_t last = 0;
  std::uint64_t first_byte = 0;
  std::uint64_t last_byte = 0;

  bool Have(const ImagePart& page) const {
    return block == page.name && first <= page.page && page.page <= last && first_byte <= page.begin &&
           page.end - 1 <= last_byte;
  }
  std::uint64_t Chunks() const { return last / kPagesPerChunk - first / kPagesPerChunk + 1; }
};

NamedPages ParseNamedPages(const std::string& damage) {
  static const std::regex kLine(
      R"(pages (\d+)-(\d+) of RAM block (\S+) \(bytes (\d+)-(\d+) of the file\): wrong checksum)");
  std::smatch found;
  if (!std::regex_match(damage, found, kLine)) {
    ADD_FAILURE() << damage;
    return {};
  }
  return {found[3], std::stoull(found[1]), std::stoull(found[2]), std::stoull(found[4]), std::stoull(found[5])};
}

class FlippedBitTest : public testing::Test {
 protected:
  FlippedBitTest() {
    guest_.image().frame.switchover_start = true;
    WriteCopy(path_, guest_, Copy::kVersion3);
    image_ = ReadWholeFile(path_);
    parts_ = ImageMap(image_).parts();
  }

  std::vector<const ImagePart*> PartsOf(Kind kind) const { return OfKind(parts_, kind); }

  // One bit of a field is wrong: its place is named, and nothing else.
  void ExpectFound(const ImagePart& part, const BitPlace& place) {
    SCOPED_TRACE(part.name + ": byte " + std::to_string(place.byte) + ", bit " + std::to_string(place.bit));
    const FlippedBit damage(path_, FileOffset{place.byte}, place.bit);
    const std::vector<std::string> found = DamageOf(path_);
    ASSERT_EQ(found.size(), 1U);
    EXPECT_TRUE(NamesPlace(found.front(), part, place.byte)) << found.front();
    ++found_;
    EXPECT_NE(RefusalOf(path_).find(found.front()), std::string::npos) << RefusalOf(path_);
  }

  // Of all these pages one bit each is wrong: as checksums are of chunks, a page is named by its chunk, and nothing
  // else is named.
  void ExpectFound(std::span<const ImagePart* const> pages) {
    std::vector<std::unique_ptr<FlippedBit>> flips;
    std::set<std::pair<std::string, std::uint64_t>> chunks;
    for (const ImagePart* page : pages) {
      const FileOffset byte{page->begin + random_() % kPageBytes};
      flips.push_back(std::make_unique<FlippedBit>(path_, byte, static_cast<unsigned>(random_() % 8)));
      chunks.insert({page->name, page->page / kPagesPerChunk});
    }
    const std::vector<std::string> damage = DamageOf(path_);
    std::vector<NamedPages> named;
    std::ranges::transform(damage, std::back_inserter(named), ParseNamedPages);
    for (const ImagePart* page : pages) {
      const bool is_named = std::ranges::any_of(named, [page](const NamedPages& some) { return some.Have(*page); });
      EXPECT_TRUE(is_named) << "page " << page->page << " of " << page->name;
      if (is_named) ++found_;
    }
    std::uint64_t chunks_named = 0;
    for (const NamedPages& named_pages : named) chunks_named += named_pages.Chunks();
    EXPECT_EQ(chunks_named, chunks.size()) << "what is sound was named, or something left out";
    EXPECT_NE(RefusalOf(path_).find(damage.front()), std::string::npos) << RefusalOf(path_);
  }

  std::mt19937_64 random_{23};
  ScratchDirectory directory_;
  std::string path_ = directory_.Path("vm.sav");
  SmallGuest guest_{{{"pc.ram", 2900}, {"pc.bios", 1, SmallGuest::Place::kPrivate}, {"vga.vram", 1500}}};
  Bytes image_;
  std::vector<ImagePart> parts_;
  std::uint64_t found_ = 0;
};

// The map has every byte, so that the tests below leave none out; holes are in known places only.
TEST_F(FlippedBitTest, EveryByteOfTheFileIsAFieldAPageOrAHole) {
  std::uint64_t end = 0;
  std::map<Kind, std::uint64_t> bytes;
  for (const ImagePart& part : parts_) {
    ASSERT_EQ(part.begin, end) << part.name;
    end = part.end;
    bytes[part.kind] += part.end - part.begin;
  }
  EXPECT_EQ(end, image_.size());
  EXPECT_EQ(bytes[Kind::kPage], guest_.CountPresent() * kPageBytes);
  std::set<std::string> holes;
  for (const ImagePart* hole : PartsOf(Kind::kHole)) holes.insert(hole->name);
  EXPECT_EQ(holes,
            (std::set<std::string>{"in front of pages", "in front of the integrity table", "pc.ram", "vga.vram"}));
  Tell("bytes_in_fields", bytes[Kind::kField]);
  Tell("bytes_in_pages", bytes[Kind::kPage]);
  Tell("bytes_in_holes", bytes[Kind::kHole]);
}

TEST_F(FlippedBitTest, IsFoundInEveryField) {
  std::uint64_t flips = 0;
  for (const ImagePart* field : PartsOf(Kind::kField)) {
    for (const BitPlace& place : BitsToFlip(*field, random_)) {
      ExpectFound(*field, place);
      ++flips;
    }
  }
  Tell("fields", PartsOf(Kind::kField).size());
  Tell("bits_flipped", flips);
  Tell("missed", flips - found_);
}

TEST_F(FlippedBitTest, IsFoundInEachPage) {
  std::vector<const ImagePart*> pages = PartsOf(Kind::kPage);
  std::ranges::shuffle(pages, random_);
  ASSERT_GE(pages.size(), kPagesDamaged);
  for (std::size_t first = 0; first < kPagesDamaged; first += kPagesDamagedAtOnce) {
    ExpectFound(std::span(pages).subspan(first, kPagesDamagedAtOnce));
  }
  Tell("pages_damaged", kPagesDamaged);
  Tell("missed", kPagesDamaged - found_);
}

TEST_F(FlippedBitTest, DoesNotCountInHoles) {
  Bytes damaged = image_;
  for (const ImagePart* hole : PartsOf(Kind::kHole)) {
    damaged[hole->begin + random_() % (hole->end - hole->begin)] ^= std::byte{1} << random_() % 8;
  }
  WriteWholeFile(path_, damaged);
  EXPECT_EQ(DamageOf(path_), std::vector<std::string>());
  Tell("holes_damaged", PartsOf(Kind::kHole).size());
}

// Version 2 has no checksums: pages and most texts are what they are. Whatever a flipped bit makes of the structure, a
// reader comes to an end, with an image or with a refusal.
TEST(FlippedBitOfVersion2Test, BringsNoReaderDown) {
  const ScratchDirectory directory;
  const std::string path = directory.Path("vm.sav");
  SmallGuest guest({{"pc.ram", 100}, {"pc.bios", 1}, {"vga.vram", 20}});
  guest.image().frame.switchover_start = true;
  WriteCopy(path, guest, Copy::kVersion2);
  const Bytes image = ReadWholeFile(path);
  const std::vector<ImagePart> parts = ImageMap(image).parts();
  ASSERT_EQ(parts.back().end, image.size());
  std::mt19937_64 random(29);
  std::map<std::string, std::pair<std::uint64_t, std::uint64_t>> found_of_flipped;
  for (const ImagePart& part : parts) {
    auto& [found, flipped] = found_of_flipped[part.kind == Kind::kPage ? "page" : part.name];
    for (const BitPlace& place : BitsToFlip(part, random)) {
      const FlippedBit damage(path, FileOffset{place.byte}, place.bit);
      ++flipped;
      if (IsRefused(path)) ++found;
    }
  }
  EXPECT_EQ(found_of_flipped["page"].first, 0U) << "what told it?";
  for (const std::string field : {"magic", "stream magic", "block length", "START FOOTER", "PART FOOTER"}) {
    EXPECT_EQ(found_of_flipped[field].first, found_of_flipped[field].second) << field;
  }
  for (const auto& [field, counts] : found_of_flipped) {
    std::cout << "[          ] " << field << ": " << counts.first << " of " << counts.second << " bits found\n";
  }
}

}  // namespace
}  // namespace vmsave
