// A small guest whose pages are sent to a store, and what is left of them in the image.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "reader/memory_loader.h"
#include "reader/verify.h"
#include "writer/page_store.h"
#include "writer/ram_block.h"

namespace vmsave {

inline ArrivingGuest Arriving(const GuestImage& guest) {
  ArrivingGuest arriving{guest.frame, {}, guest.description, guest.was_running};
  for (const RamBlock& block : guest.blocks) arriving.blocks.push_back({block.name, block.length()});
  return arriving;
}

inline std::vector<PageIndex> Pages(const std::vector<std::uint64_t>& numbers) {
  std::vector<PageIndex> pages;
  for (const std::uint64_t number : numbers) pages.emplace_back(number);
  return pages;
}

// Copies the bytes, which are of pages in this order, to where the channel wants them.
inline void SendBytes(PageChannel& channel, std::size_t block, std::span<const PageIndex> pages,
                      std::span<const std::byte> bytes) {
  ASSERT_EQ(bytes.size(), pages.size() * kPageBytes);
  for (const iovec& piece : channel.Place(block, pages)) {
    ASSERT_LE(piece.iov_len, bytes.size());
    std::memcpy(piece.iov_base, bytes.data(), piece.iov_len);
    bytes = bytes.subspan(piece.iov_len);
  }
  ASSERT_TRUE(bytes.empty());
  channel.Commit();
}

template <class Action>
void ExpectFailed(Action&& action, std::string_view words) {
  try {
    std::forward<Action>(action)();
    ADD_FAILURE() << "did not fail; expected: " << words;
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kFailed) << error.what();
    EXPECT_NE(std::string_view(error.what()).find(words), std::string_view::npos) << error.what();
  }
}

// Pages as the guest has them.
inline void SendPages(PageChannel& channel, const GuestImage& guest, std::size_t block,
                      std::span<const PageIndex> pages) {
  std::vector<std::byte> bytes;
  for (const PageIndex page : pages) {
    const auto from = guest.blocks[block].memory.subspan(page.value() * kPageBytes, kPageBytes);
    bytes.insert(bytes.end(), from.begin(), from.end());
  }
  SendBytes(channel, block, pages, bytes);
}

// The same pages, filled with that byte.
inline void SendFilled(PageChannel& channel, std::size_t block, std::span<const PageIndex> pages, std::byte fill) {
  SendBytes(channel, block, pages, std::vector<std::byte>(pages.size() * kPageBytes, fill));
}

// The image loads into the guest's very bytes, and all its checksums are right.
inline void ExpectLoadsAs(const std::string& path, const GuestImage& guest) {
  const Image image(path);
  ASSERT_EQ(image.contents().blocks.size(), guest.blocks.size());
  std::vector<std::vector<std::byte>> memory;
  std::vector<LoadTarget> targets;
  for (const RamBlock& block : guest.blocks) memory.emplace_back(block.memory.size(), std::byte{0xee});
  for (auto& block : memory) targets.push_back({block, nullptr, {}});
  Progress progress;
  const LoadedRam loaded = LoadImage(image, targets, {}, PageChecks::kOff, progress, Interrupt());
  EXPECT_TRUE(std::ranges::equal(loaded.device_state, guest.device_state));
  for (std::size_t block = 0; block < memory.size(); ++block) {
    for (std::uint64_t page = 0; page < guest.blocks[block].pages(); ++page) {
      EXPECT_EQ(std::memcmp(memory[block].data() + page * kPageBytes,
                            guest.blocks[block].memory.data() + page * kPageBytes, kPageBytes),
                0)
          << block << ":" << page;
    }
  }
  EXPECT_EQ(Verify(image, {}, progress, Interrupt()).damage, std::vector<std::string>());
}

}  // namespace vmsave
