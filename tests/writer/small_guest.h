// A guest of a few MiB for tests: blocks of awkward sizes, in private memory, in a memfd with holes and in a file.
#pragma once

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <deque>
#include <random>
#include <string>
#include <vector>

#include "format/bytes.h"
#include "io/memory_mapping.h"
#include "writer/ram_block.h"

namespace vmsave {

// A FULL section of a made-up device, EOF and VMDESCRIPTION.
inline std::vector<std::byte> MakeDeviceState() {
  constexpr std::string_view kDescription = R"({"page_size": 4096, "devices": []})";
  ByteWriter out;
  out.AppendBigEndian<std::uint8_t>(0x04);
  out.AppendBigEndian<std::uint32_t>(7);
  out.AppendBigEndian<std::uint8_t>(5);
  out.Append("timer");
  out.AppendBigEndian<std::uint32_t>(0);
  out.AppendBigEndian<std::uint32_t>(2);
  out.AppendBigEndian<std::uint64_t>(0x1122334455667788);
  out.AppendBigEndian<std::uint8_t>(0x7e);
  out.AppendBigEndian<std::uint32_t>(7);
  out.AppendBigEndian<std::uint8_t>(0x00);
  out.AppendBigEndian<std::uint8_t>(0x06);
  out.AppendBigEndian(static_cast<std::uint32_t>(kDescription.size()));
  out.Append(kDescription);
  return out.Take();
}

// REQUIRES: bytes.size() is a multiple of 8, and not 0.
inline void FillRandomly(std::span<std::byte> bytes, std::mt19937_64& random) {
  for (std::size_t at = 0; at < bytes.size(); at += 8) PutLittleEndian<std::uint64_t>(bytes.subspan(at), random());
  bytes.back() = std::byte{0xff};  // never a zero page
}

// REQUIRES: the length is not 0.
inline FileDescriptor MakeMemoryFile(ByteCount length) {
  FileDescriptor file(::memfd_create("test guest", MFD_CLOEXEC), "test guest");
  if (::ftruncate(file.number(), static_cast<off_t>(length.value())) != 0) throw Error::FromErrno("ftruncate", errno);
  return file;
}

class SmallGuest {
 public:
  enum class Place { kPrivate, kMemoryFile };
  struct Shape {
    std::string name;
    std::uint64_t pages;
    Place place = Place::kMemoryFile;
  };

  // Main memory that is no multiple of any chunk, a ROM of one page, and video memory in the middle of a file.
  SmallGuest() : SmallGuest({{"pc.ram", 725}, {"pc.bios", 1, Place::kPrivate}, {"vga.vram", 300}}) {}

  explicit SmallGuest(const std::vector<Shape>& shapes, std::uint64_t seed = 1)
      : random_(seed), device_state_(MakeDeviceState()) {
    for (const Shape& shape : shapes) Add(shape);
    image_.frame.machine = "pc-i440fx-7.2";
    image_.frame.ram_section_id = 2;
    image_.device_state = device_state_;
    image_.description = "<domain type='kvm'><name>small</name></domain>";
  }
  SmallGuest(const SmallGuest&) = delete;
  SmallGuest& operator=(const SmallGuest&) = delete;

  // Points into this object.
  GuestImage& image() { return image_; }
  const GuestImage& image() const { return image_; }
  std::span<std::byte> memory(std::size_t block) { return memories_[block].bytes(); }

  // As a plain loop sees it.
  bool IsPresent(std::size_t block, std::uint64_t page) const {
    const auto bytes = image_.blocks[block].memory.subspan(page * kPageBytes, kPageBytes);
    return std::ranges::any_of(bytes, [](std::byte byte) { return byte != std::byte{0}; });
  }
  std::uint64_t CountPresent() const {
    std::uint64_t count = 0;
    for (std::size_t block = 0; block < image_.blocks.size(); ++block) {
      for (std::uint64_t page = 0; page < image_.blocks[block].pages(); ++page) count += IsPresent(block, page) ? 1 : 0;
    }
    return count;
  }

 private:
  static constexpr FileOffset kBackingStart{2 * kPageBytes};

  void Add(const Shape& shape) {
    const ByteCount length{shape.pages * kPageBytes};
    const FileDescriptor* backing = nullptr;
    if (shape.place == Place::kPrivate) {
      memories_.push_back(MemoryMapping::Anonymous(length));
    } else {
      const FileOffset end = kBackingStart + length + ByteCount{3 * kPageBytes};
      backing = &files_.emplace_back(MakeMemoryFile(end - FileOffset{0}));
      memories_.push_back(MemoryMapping::OfFile(*backing, kBackingStart, length, MemoryMapping::Access::kReadWrite));
    }
    Fill(memories_.back().bytes());
    RamBlock block{shape.name, memories_.back().bytes(), std::nullopt, backing, FileOffset{0}};
    if (backing != nullptr) block.backing_start = kBackingStart;
    image_.blocks.push_back(std::move(block));
  }

  // Runs of 1 to 40 pages: of random bytes, never touched, touched but zero, or with a single byte at their very end.
  void Fill(std::span<std::byte> memory) {
    std::uint64_t kind = 0;
    for (std::uint64_t page = 0; page < memory.size() / kPageBytes; ++kind) {
      const std::uint64_t end = std::min(page + 1 + random_() % 40, memory.size() / kPageBytes);
      for (; page < end; ++page) FillPage(memory.subspan(page * kPageBytes, kPageBytes), kind % 5);
    }
  }

  void FillPage(std::span<std::byte> page, std::uint64_t kind) {
    if (kind == 0 || kind == 2) FillRandomly(page, random_);
    if (kind == 3) std::ranges::fill(page, std::byte{0});
    if (kind == 4) page.back() = std::byte{1};
  }

  std::mt19937_64 random_;
  std::deque<FileDescriptor> files_;  // blocks point to them
  std::vector<MemoryMapping> memories_;
  std::vector<std::byte> device_state_;
  GuestImage image_;
};

}  // namespace vmsave
