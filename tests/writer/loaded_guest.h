// Images loaded again, to compare them with the guest.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "reader/memory_loader.h"
#include "reader/verify.h"
#include "tests/format/byte_strings.h"
#include "writer/ram_block.h"

namespace vmsave {

// Loads the image into memory that held other bytes, and compares all of it with the guest; its checksums are right.
inline void ExpectHoldsGuest(const std::string& path, const GuestImage& guest) {
  const Image image(path);
  ASSERT_EQ(image.contents().blocks.size(), guest.blocks.size());
  std::vector<Bytes> memory;
  std::vector<LoadTarget> targets;
  for (const RamBlock& block : guest.blocks) memory.emplace_back(block.memory.size(), std::byte{0xee});
  for (Bytes& block : memory) targets.push_back({block, nullptr, {}});
  Progress progress;
  const LoadedRam loaded = LoadImage(image, targets, {}, PageChecks::kOn, progress, Interrupt());
  for (std::size_t i = 0; i < memory.size(); ++i) {
    EXPECT_EQ(loaded.contents.blocks[i].name, guest.blocks[i].name);
    EXPECT_TRUE(std::ranges::equal(memory[i], guest.blocks[i].memory)) << guest.blocks[i].name;
  }
  EXPECT_TRUE(std::ranges::equal(loaded.device_state, guest.device_state));
  EXPECT_EQ(image.description(), guest.description);
  EXPECT_EQ(image.was_running(), guest.was_running);
  EXPECT_EQ(Verify(image, {}, progress, Interrupt()).damage, std::vector<std::string>());
}

}  // namespace vmsave
