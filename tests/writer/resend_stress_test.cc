// Pages are sent again and again, each time by another channel, as a live migration over several channels does it.
#include <gtest/gtest.h>

#include <barrier>
#include <random>

#include "io/channels.h"
#include "tests/format/byte_strings.h"
#include "tests/scratch_directory.h"
#include "tests/writer/arriving_pages.h"
#include "tests/writer/image_files.h"
#include "tests/writer/late_engine.h"
#include "tests/writer/loaded_guest.h"
#include "tests/writer/small_guest.h"
#include "writer/fixed_offset_store.h"

namespace vmsave {
namespace {

constexpr unsigned kChannels = 4;
constexpr std::uint64_t kRounds = 2000;

std::uint64_t Mix(std::uint64_t value) {
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9;
  value = (value ^ (value >> 27)) * 0x94d049bb133111eb;
  return value ^ (value >> 31);
}

// Makes each version of each page different from every other.
void FillPage(std::span<std::byte> bytes, std::size_t block, std::uint64_t page, std::uint64_t version) {
  const std::uint64_t value = Mix(version << 32 | page << 4 | block) | 1;
  for (std::size_t at = 0; at < bytes.size(); at += 8) PutLittleEndian<std::uint64_t>(bytes.subspan(at), value + at);
}

// What becomes of a page in a round; follows from the two, so that every channel knows what is its own.
struct Turn {
  enum class Kind { kUnchanged, kZero, kContent };
  Kind kind;
  unsigned channel;

  Turn(std::size_t block, std::uint64_t page, std::uint64_t round) {
    const std::uint64_t dice = Mix(round << 32 | page << 4 | block);
    kind = dice % 8 < 4 ? Kind::kUnchanged : dice % 8 < 5 ? Kind::kZero : Kind::kContent;
    channel = static_cast<unsigned>(dice >> 8) % kChannels;
  }
};

class Sender {
 public:
  Sender(PageStore& store, const std::vector<BlockShape>& blocks, unsigned number)
      : channel_(store.OpenChannel()), blocks_(blocks), number_(number), random_(number) {}

  // This channel's share of all pages of the round, in any order, in batches of any size.
  void SendRound(std::uint64_t round) {
    for (std::size_t block = 0; block < blocks_.size(); ++block) {
      std::vector<PageIndex> pages;
      std::vector<PageIndex> zeros;
      for (std::uint64_t page = 0; page < blocks_[block].length.value() / kPageBytes; ++page) {
        const Turn turn(block, page, round);
        if (turn.channel != number_ || turn.kind == Turn::Kind::kUnchanged) continue;
        (turn.kind == Turn::Kind::kZero ? zeros : pages).emplace_back(page);
      }
      if (random_() % 2 == 0) std::ranges::shuffle(pages, random_);
      channel_->Zero(block, zeros);
      SendInBatches(block, pages, round);
    }
  }

  void Settle() { channel_->Settle(); }

 private:
  void SendInBatches(std::size_t block, std::span<const PageIndex> pages, std::uint64_t round) {
    while (!pages.empty()) {
      const auto batch = pages.first(std::min<std::size_t>(1 + random_() % 20, pages.size()));
      Bytes bytes(batch.size() * kPageBytes);
      for (std::size_t i = 0; i < batch.size(); ++i) {
        FillPage(std::span(bytes).subspan(i * kPageBytes, kPageBytes), block, batch[i].value(), round);
      }
      SendBytes(*channel_, block, batch, bytes);
      pages = pages.subspan(batch.size());
    }
  }

  std::unique_ptr<PageChannel> channel_;
  const std::vector<BlockShape>& blocks_;
  unsigned number_;
  std::mt19937_64 random_;
};

// A guest's memory as it is behind each round.
class LastVersions {
 public:
  explicit LastVersions(SmallGuest& guest) : guest_(guest) {
    for (std::size_t block = 0; block < guest.image().blocks.size(); ++block) {
      std::ranges::fill(guest.memory(block), std::byte{0});
    }
  }

  void PlayRound(std::uint64_t round) {
    for (std::size_t block = 0; block < guest_.image().blocks.size(); ++block) {
      for (std::uint64_t page = 0; page < guest_.image().blocks[block].pages(); ++page) {
        const Turn turn(block, page, round);
        const std::span<std::byte> bytes = guest_.memory(block).subspan(page * kPageBytes, kPageBytes);
        if (turn.kind == Turn::Kind::kZero) std::ranges::fill(bytes, std::byte{0});
        if (turn.kind == Turn::Kind::kContent) FillPage(bytes, block, page, round);
      }
    }
  }

  // Compares the pages that are not zero with what the file holds now.
  std::uint64_t CountWrongPages(const FileDescriptor& file, const FixedOffsetLayout& layout) const {
    std::uint64_t wrong = 0;
    for (std::size_t block = 0; block < guest_.image().blocks.size(); ++block) {
      const std::span<const std::byte> memory = guest_.image().blocks[block].memory;
      Bytes written(memory.size());
      ReadAt(file, written, layout.blocks[block].pages_offset);
      for (std::size_t at = 0; at < memory.size(); at += kPageBytes) {
        if (memory[at] == std::byte{0}) continue;  // content starts with an odd number
        if (std::memcmp(&memory[at], &written[at], kPageBytes) != 0) ++wrong;
      }
    }
    return wrong;
  }

 private:
  SmallGuest& guest_;
};

enum class StressEngine { kLate, kSync, kUring };

std::string StressEngineName(StressEngine engine) {
  if (engine == StressEngine::kLate) return "late";
  return std::string(EngineName(engine == StressEngine::kUring ? EngineKind::kUring : EngineKind::kSync));
}

class ResendStressTest : public testing::TestWithParam<StressEngine> {
 protected:
  void SetUp() override {
    try {
      if (GetParam() == StressEngine::kUring) ChooseEngine(EngineKind::kUring);
    } catch (const Error& error) {
      GTEST_SKIP() << error.what();
    }
  }

  EngineMaker MakeEngines() {
    switch (GetParam()) {
      case StressEngine::kLate:
        return [this] { return std::make_unique<LateEngine>(3, ++engines_); };
      case StressEngine::kSync:
        return [] { return MakeEngine(EngineKind::kSync, 3); };
      case StressEngine::kUring:
        return [] { return MakeEngine(EngineKind::kUring, 3); };
    }
    return {};
  }

 private:
  std::atomic<std::uint64_t> engines_ = 0;
};

TEST_P(ResendStressTest, EveryPageHoldsItsLastVersion) {
  const ScratchDirectory directory;
  const std::string path = directory.Path("vm.sav");
  SmallGuest guest({{"pc.ram", 150}, {"vga.vram", 37}});
  LastVersions versions(guest);
  NewFile file(path, Replace::kNo, CacheUse::kPageCache);
  const ArrivingGuest arriving = Arriving(guest.image());
  const FixedOffsetLayout layout = LayOutOf(arriving);
  const auto store = MakeFixedOffsetStore(file, arriving, FixedOffsetKind::kVersion3,
                                          {kChannels, EngineKind::kSync, true}, MakeEngines());
  std::uint64_t wrong_pages = 0;
  std::uint64_t round = 0;
  // Runs when all channels are settled, and before any of them goes on.
  const auto between_rounds = [&]() noexcept {
    versions.PlayRound(round++);
    wrong_pages += versions.CountWrongPages(file.buffered(), layout);
  };
  std::barrier barrier(kChannels, between_rounds);
  RunChannels(kChannels, Interrupt(), [&](const ChannelContext& context) {
    Sender sender(*store, arriving.blocks, context.channel());
    try {
      for (std::uint64_t i = 0; i < kRounds; ++i) {
        sender.SendRound(i);
        sender.Settle();
        barrier.arrive_and_wait();
      }
    } catch (...) {
      barrier.arrive_and_drop();  // the others need not wait for this one
      throw;
    }
  });
  EXPECT_EQ(wrong_pages, 0U);
  Progress progress;
  store->Complete(guest.image().frame, guest.image().device_state, progress, Interrupt());
  file.Publish();
  ExpectHoldsGuest(path, guest.image());
}

INSTANTIATE_TEST_SUITE_P(Engines, ResendStressTest,
                         testing::Values(StressEngine::kLate, StressEngine::kSync, StressEngine::kUring),
                         [](const auto& shown) { return StressEngineName(shown.param); });

}  // namespace
}  // namespace vmsave
