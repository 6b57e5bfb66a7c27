// What every byte of an image of version 2 (raw) or 3 is, told from FORMAT.md alone: the map knows nothing of the
// readers.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "format/bytes.h"
#include "format/units.h"

namespace vmsave {

// A stretch of the file.
struct ImagePart {
  enum class Kind { kField, kPage, kHole };
  enum class Area { kHeader, kStream, kTable };
  Kind kind = Kind::kField;
  std::string name;  // of a page or its hole in version 3: its RAM block's
  Area area = Area::kHeader;
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
  std::uint64_t page = 0;
};

// The parts of the image, one behind the other, from the first byte to the last.
class ImageMap {
 public:
  // REQUIRES: a sound image as vmsave writes it; version 3 with checksums. Its device state is one part.
  explicit ImageMap(std::span<const std::byte> image) : image_(image), stream_end_(image.size()) {
    MapHeader();
    MapStreamHead();
    while (ram_left_ > 0) MapBlock();
    MapFooter("START");
    if (version_ == 2) MapRecords();
    MapStreamTail();
    if (version_ == 3) MapTable();
  }

  const std::vector<ImagePart>& parts() const { return parts_; }

 private:
  using Kind = ImagePart::Kind;
  struct Block {
    std::string name;
    std::uint64_t pages;
  };

  void Take(const std::string& name, std::uint64_t length, Kind kind = Kind::kField, std::uint64_t page = 0) {
    if (length != 0) parts_.push_back({kind, name, area_, at_, at_ + length, page});
    at_ += length;
  }
  void SkipHoleTo(const std::string& name, std::uint64_t offset) { Take(name, offset - at_, Kind::kHole); }

  template <class T>
  T Little(const std::string& name) {
    Take(name, sizeof(T));
    return GetLittleEndian<T>(image_.subspan(at_ - sizeof(T)));
  }
  template <class T>
  T Big(const std::string& name) {
    Take(name, sizeof(T));
    return GetBigEndian<T>(image_.subspan(at_ - sizeof(T)));
  }
  std::string Text(const std::string& name, std::size_t length) {
    Take(name, length);
    return std::string(AsText(image_.subspan(at_ - length, length)));
  }
  std::string CountedText(const std::string& name) { return Text(name, Big<std::uint8_t>(name + " length")); }

  void MapHeader() {
    Take("magic", 16);
    version_ = Little<std::uint32_t>("version");
    const auto data_length = Little<std::uint32_t>("data_len");
    Take("was_running", 4);
    Take("format", 4);
    Take("cookie_offset", 4);
    version_ == 3 ? MapExtension() : Take("unused", 56);
    const std::uint64_t stream = at_ + data_length;
    Take("description", AsText(image_.subspan(at_, data_length)).find('\0'));
    Take("NUL of the description", 1);
    Take("padding of the description", stream - at_);
  }

  void MapExtension() {
    Take("ext_magic", 4);
    Take("features_incompat", 4);
    Take("features_compat", 4);
    stream_end_ = Little<std::uint64_t>("stream_end");
    table_ = Little<std::uint64_t>("integrity_offset");
    table_end_ = table_ + Little<std::uint64_t>("integrity_length");
    Take("header_xxh3", 8);
    Take("reserved", 12);
  }

  void MapStreamHead() {
    area_ = ImagePart::Area::kStream;
    Take("stream magic", 4);
    Take("stream version", 4);
    Take("CONFIGURATION", 1);
    Text("machine type", Big<std::uint32_t>("machine type length"));
    if (image_[at_] == std::byte{5}) MapCapabilities();
    MapSectionHead("START");
    CountedText("section name");
    Take("instance", 4);
    Take("section version", 4);
    ram_left_ = Big<std::uint64_t>("total and MEM_SIZE") & ~std::uint64_t{0xfff};
  }

  void MapCapabilities() {
    Take("subsection", 1);
    CountedText("subsection name");
    Take("subsection version", 4);
    for (auto left = Big<std::uint32_t>("capability count"); left > 0; --left) CountedText("capability");
  }

  void MapSectionHead(const std::string& name) {
    Take(name, 1);
    Take(name + " section id", 4);
  }
  void MapFooter(const std::string& of) {
    Take(of + " EOS", 8);
    Take(of + " FOOTER", 1);
    Take(of + " FOOTER section id", 4);
  }

  void MapBlock() {
    const std::string name = CountedText("block name");
    const auto length = Big<std::uint64_t>("block length");
    ram_left_ -= length;
    blocks_.push_back({name, length / kPageBytes});
    if (version_ == 3) MapFixedOffsets(blocks_.back());
  }

  void MapFixedOffsets(const Block& block) {
    Take("mapped-ram version", 4);
    Take("mapped-ram page size", 8);
    const auto bitmap = Big<std::uint64_t>("bitmap_offset");
    const auto pages = Big<std::uint64_t>("pages_offset");
    SkipHoleTo("in front of a bitmap", bitmap);
    const std::span<const std::byte> bits = image_.subspan(at_, (block.pages + 63) / 64 * 8);
    Take("bitmap", bits.size());
    SkipHoleTo("in front of pages", pages);
    for (std::uint64_t page = 0; page < block.pages; ++page) {
      const bool present = (bits[page / 8] & (std::byte{1} << (page % 8))) != std::byte{0};
      Take(block.name, kPageBytes, present ? Kind::kPage : Kind::kHole, page);
    }
  }

  void MapRecords() {
    MapSectionHead("PART");
    while ((GetBigEndian<std::uint64_t>(image_.subspan(at_)) & 0x10) == 0) {
      const auto head = Big<std::uint64_t>("record");
      if ((head & 0x20) == 0) CountedText("block name of a record");
      (head & 0x02) != 0 ? Take("fill byte", 1) : Take("", kPageBytes, Kind::kPage, head / kPageBytes);
    }
    MapFooter("PART");
  }

  void MapStreamTail() {
    if (image_[at_] == std::byte{8}) {
      Take("COMMAND", 1);
      Take("command", 2);
      Take("command length", 2);
    }
    MapSectionHead("END");
    MapFooter("END");
    Take("device state", stream_end_ - at_);
  }

  void MapTable() {
    SkipHoleTo("in front of the integrity table", table_);
    area_ = ImagePart::Area::kTable;
    Take("table magic", 8);
    Take("table version", 4);
    Take("algorithm", 4);
    Take("chunk size", 4);
    const auto ranges = Little<std::uint32_t>("range count");
    Take("block count", 4);
    for (std::uint32_t i = 0; i < ranges; ++i) {
      Take("range offset", 8);
      Take("range length", 8);
      Take("range hash", 8);
    }
    for (const Block& block : blocks_) {
      Text("hashed block name", Little<std::uint32_t>("hashed block name length"));
      Take("hashed block length", 8);
      Take("hashed block page size", 8);
      Take("hashed block address", 8);
      for (std::uint64_t chunk = 0; chunk * 16 < block.pages; ++chunk) Take("chunk hash", 8);
    }
    Take("table hash", table_end_ - at_);
  }

  std::span<const std::byte> image_;
  std::vector<ImagePart> parts_;
  std::vector<Block> blocks_;
  ImagePart::Area area_ = ImagePart::Area::kHeader;
  std::uint32_t version_ = 0;
  std::uint64_t at_ = 0;
  std::uint64_t stream_end_;
  std::uint64_t table_ = 0;
  std::uint64_t table_end_ = 0;
  std::uint64_t ram_left_ = 0;
};

}  // namespace vmsave
