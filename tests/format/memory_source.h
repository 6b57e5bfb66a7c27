// A stream in memory, and a sink that keeps what comes.
#pragma once

#include <algorithm>
#include <array>
#include <map>
#include <utility>

#include "format/stream_reader.h"
#include "tests/format/byte_strings.h"

namespace vmsave {

// Gives at most `piece` bytes at a time, like a socket. Keeps a reference to the bytes.
class MemorySource final : public ByteSource {
 public:
  explicit MemorySource(std::span<const std::byte> bytes, std::uint64_t position = 0, std::size_t piece = 1 << 20)
      : bytes_(bytes), position_(position), piece_(piece) {}

  std::size_t ReadSome(std::span<std::byte> out) override {
    if (position_ >= bytes_.size()) return 0;
    const std::size_t count = std::min({out.size(), piece_, bytes_.size() - static_cast<std::size_t>(position_)});
    std::ranges::copy(bytes_.subspan(position_, count), out.begin());
    position_ += count;
    return count;
  }
  FileOffset position() const override { return FileOffset{position_}; }
  void StepBack() override { --position_; }
  std::string_view name() const override { return "vm1.sav"; }

 private:
  std::span<const std::byte> bytes_;
  std::uint64_t position_;
  std::size_t piece_;
};

// As above, but a file: skipping is free, and may go past the end.
class MemoryFile final : public ByteSource {
 public:
  explicit MemoryFile(std::span<const std::byte> bytes, std::uint64_t position) : bytes_(bytes), position_(position) {}

  std::size_t ReadSome(std::span<std::byte> out) override {
    if (position_ >= bytes_.size()) return 0;
    const std::size_t count = std::min(out.size(), bytes_.size() - static_cast<std::size_t>(position_));
    std::ranges::copy(bytes_.subspan(position_, count), out.begin());
    position_ += count;
    return count;
  }
  FileOffset position() const override { return FileOffset{position_}; }
  void StepBack() override { --position_; }
  void SkipTo(FileOffset position) override {
    EXPECT_GE(position.value(), position_) << "skips backwards";
    position_ = position.value();
  }
  std::string_view name() const override { return "vm1.sav"; }

 private:
  std::span<const std::byte> bytes_;
  std::uint64_t position_;
};

class RecordingSink final : public PageSink {
 public:
  void OnBlocks(const StreamContents& contents) override {
    EXPECT_FALSE(contents.blocks.empty());
    blocks_ = contents.blocks.size();
    frame = contents.frame;
    ++lists;
  }
  std::span<std::byte> PageTarget(std::size_t block, PageIndex page) override {
    EXPECT_LT(block, blocks_);
    Note(block, page, 'p');
    return pass_over ? std::span<std::byte>() : std::span(pages[{block, page.value()}]);
  }
  void OnZeroPage(std::size_t block, PageIndex page) override {
    EXPECT_LT(block, blocks_);
    Note(block, page, 'z');
    pages[{block, page.value()}] = {};
  }

  // What came, in order: "0:1p 0:1z".
  std::string calls;
  int lists = 0;
  StreamFrame frame;  // as it was known at the block list
  bool pass_over = false;
  std::map<std::pair<std::size_t, std::uint64_t>, std::array<std::byte, kPageBytes>> pages;

 private:
  void Note(std::size_t block, PageIndex page, char kind) {
    if (!calls.empty()) calls += ' ';
    calls += std::to_string(block) + ':' + std::to_string(page.value()) + kind;
  }

  std::size_t blocks_ = 0;
};

}  // namespace vmsave
