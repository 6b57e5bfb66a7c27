#include "reader/page_server.h"

#include <gtest/gtest.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <condition_variable>
#include <map>
#include <set>
#include <thread>

#include "format/stream_reader.h"
#include "tests/reader/image_copies.h"
#include "tests/scratch_directory.h"

namespace vmsave {
namespace {

using PageKey = std::pair<std::string, std::uint64_t>;

// A QEMU in postcopy: takes sections of pages as they come, and lets the test ask for pages.
class FakeQemu : public ByteSink, public ByteSource {
 public:
  using ByteSink::Write;

  void Write(std::span<const iovec> pieces) override {
    const std::lock_guard lock(mutex_);
    for (const iovec& piece : pieces) {
      const auto* bytes = static_cast<const std::byte*>(piece.iov_base);
      unread_.insert(unread_.end(), bytes, bytes + piece.iov_len);
    }
    TakeSections();
    changed_.notify_all();
  }

  std::size_t ReadSome(std::span<std::byte> out) override {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return !answers_.empty() || hung_up_; });
    const std::size_t count = std::min(out.size(), answers_.size());
    std::copy_n(answers_.begin(), count, out.begin());
    answers_.erase(answers_.begin(), answers_.begin() + static_cast<std::ptrdiff_t>(count));
    return count;
  }
  FileOffset position() const override { return FileOffset{0}; }
  std::string_view name() const override { return "QEMU"; }

  void Ask(std::string_view block, std::uint64_t page, std::uint64_t count = 1) {
    ByteWriter out;
    out.AppendBigEndian(std::uint16_t{3});
    out.AppendBigEndian(static_cast<std::uint16_t>(13 + block.size()));
    out.AppendBigEndian(page * kPageBytes);
    out.AppendBigEndian(static_cast<std::uint32_t>(count * kPageBytes));
    out.AppendBigEndian(static_cast<std::uint8_t>(block.size()));
    out.Append(block);
    Send(out.Take());
  }
  void SayDone(std::uint32_t status = 0) {
    ByteWriter out;
    out.AppendBigEndian(std::uint16_t{1});
    out.AppendBigEndian(std::uint16_t{4});
    out.AppendBigEndian(status);
    Send(out.Take());
  }
  void Send(const Bytes& bytes) {
    const std::lock_guard lock(mutex_);
    answers_.insert(answers_.end(), bytes.begin(), bytes.end());
    changed_.notify_all();
  }
  void HangUp() {
    const std::lock_guard lock(mutex_);
    hung_up_ = true;
    changed_.notify_all();
  }

  void AwaitPage(std::string_view block, std::uint64_t page) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return pages.contains({std::string(block), page}); });
  }
  void AwaitEnd() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return ended; });
  }

  std::map<PageKey, Bytes> pages;  // empty for zero pages
  std::vector<PageKey> order;
  std::set<PageKey> twice;
  bool ended = false;

 private:
  void TakeSections() {
    ByteReader in(unread_, "the stream");
    while (in.left() > 0) {
      const auto type = in.TakeBigEndian<std::uint8_t>();
      if (type == 0) {
        ended = true;
        break;
      }
      in.TakeBigEndian<std::uint32_t>();
      std::string block;
      while (true) {
        const auto head = in.TakeBigEndian<std::uint64_t>();
        const std::uint64_t flags = head & ram_flag::kMask;
        if (flags == ram_flag::kEndOfSection) break;
        if ((flags & ram_flag::kContinue) == 0) block = AsText(in.Take(in.TakeBigEndian<std::uint8_t>()));
        const bool present = (flags & ram_flag::kPage) != 0;
        const auto bytes = in.Take(present ? kPageBytes : 1);
        const PageKey key{block, head / kPageBytes};
        const auto contents = present ? Bytes(bytes.begin(), bytes.end()) : Bytes();
        if (!pages.emplace(key, contents).second) twice.insert(key);
        order.push_back(key);
      }
      in.Take(5);
    }
    unread_.clear();
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  Bytes unread_;
  Bytes answers_;
  bool hung_up_ = false;
};

class PageServerTest : public testing::Test {
 protected:
  void SetUp() override { WriteCopy(path_, guest_, Copy::kVersion3); }

  void Start(const FillOptions& fill = {}, ServeStart start = {}, ByteCount host_page = kPageSize) {
    if (!image_) image_.emplace(path_);
    for (const StreamBlock& block : image_->contents().blocks) blocks_.push_back({block.name, block.length, host_page});
    decoder_.emplace(blocks_);
    server_.emplace(*image_, blocks_, ServeOptions{{.channels = 2}, PageChecks::kOn, fill}, std::move(start), qemu_,
                    qemu_, *decoder_, stop_);
    thread_ = std::thread([this] {
      try {
        server_->Run();
      } catch (const Error& error) {
        failure_ = error.what();
      }
    });
  }

  // How the serving ended: empty where well.
  std::string End() {
    thread_.join();
    return failure_;
  }

  void ExpectAllPagesOnce() {
    EXPECT_TRUE(qemu_.twice.empty());
    for (std::size_t i = 0; i < blocks_.size(); ++i) {
      for (std::uint64_t page = 0; page < blocks_[i].pages(); ++page) {
        const auto found = qemu_.pages.find({blocks_[i].name, page});
        ASSERT_EQ(found != qemu_.pages.end() && !found->second.empty(), guest_.IsPresent(i, page)) << page;
        if (!guest_.IsPresent(i, page)) continue;
        const auto memory = guest_.image().blocks[i].memory.subspan(page * kPageBytes, kPageBytes);
        EXPECT_TRUE(std::ranges::equal(found->second, memory)) << blocks_[i].name << " " << page;
      }
    }
  }

  std::uint64_t FirstPage(std::size_t block, bool present) const {
    std::uint64_t page = 0;
    while (guest_.IsPresent(block, page) != present) ++page;
    return page;
  }

  ScratchDirectory directory_;
  std::string path_ = directory_.Path("vm.sav");
  SmallGuest guest_;
  std::optional<Image> image_;
  std::vector<PostcopyBlock> blocks_;
  FakeQemu qemu_;
  std::optional<ReturnPathDecoder> decoder_;
  const Interrupt stop_;
  std::optional<PageServer> server_;
  std::thread thread_;
  std::string failure_;
};

constexpr FillOptions kNoFill{false, {}};

TEST_F(PageServerTest, FillsEveryPresentPageOnceAndEnds) {
  Start();
  qemu_.AwaitEnd();
  qemu_.SayDone();
  EXPECT_EQ(End(), "");
  EXPECT_TRUE(server_->done());
  ExpectAllPagesOnce();
  EXPECT_EQ(server_->figures().left, ByteCount{0});
}

TEST_F(PageServerTest, PagesThatAreAskedForMeanwhileComeOnceToo) {
  Start();
  for (std::size_t i = 0; i < blocks_.size(); ++i) {
    for (std::uint64_t page = 0; page < blocks_[i].pages(); page += 3) qemu_.Ask(blocks_[i].name, page);
  }
  qemu_.AwaitEnd();
  qemu_.SayDone();
  EXPECT_EQ(End(), "");
  ExpectAllPagesOnce();
}

TEST_F(PageServerTest, WithoutFillingAPageComesWithItsChunkWhenItIsAskedFor) {
  Start(kNoFill);
  const std::uint64_t page = FirstPage(0, true);
  qemu_.Ask(blocks_[0].name, page);
  qemu_.AwaitPage(blocks_[0].name, page);
  EXPECT_EQ(qemu_.order.front(), PageKey(blocks_[0].name, page));
  qemu_.HangUp();
  EXPECT_NE(End().find("closed the connection"), std::string::npos);
  for (const auto& [key, bytes] : qemu_.pages) EXPECT_EQ(key.second / kPagesPerChunk, page / kPagesPerChunk);
  EXPECT_EQ(server_->figures().latency.count(), 1U);
}

TEST_F(PageServerTest, WhatIsAskedForIsNoted) {
  Start(kNoFill);
  const std::uint64_t page = FirstPage(0, true);
  qemu_.Ask(blocks_[0].name, page);
  qemu_.AwaitPage(blocks_[0].name, page);
  EXPECT_FALSE(server_->HasNotedAll());
  ASSERT_EQ(server_->NeededFirst().size(), 1U);
  EXPECT_LE(server_->NeededFirst()[0].first_page, page);
  qemu_.HangUp();
  EXPECT_NE(End(), "");
}

TEST_F(PageServerTest, WhatWasOnItsWayWhenItWasAskedForIsNotedToo) {
  Start({}, {.has_devices = false});
  while (server_->figures().left.value() != 0) std::this_thread::yield();
  EXPECT_TRUE(server_->NeededFirst().empty());
  for (int again = 0; again < 3; ++again) qemu_.Ask(blocks_[0].name, FirstPage(0, true));
  qemu_.Ask(blocks_[1].name, FirstPage(1, true));
  while (server_->NeededFirst().size() < 2) std::this_thread::yield();
  EXPECT_EQ(server_->NeededFirst()[1].block, 1U);
  qemu_.HangUp();
  End();
}

TEST_F(PageServerTest, WhatIsAskedForLaterIsNotNoted) {
  FillOptions fill = kNoFill;
  fill.noted = std::chrono::seconds(0);
  Start(fill);
  const std::uint64_t page = FirstPage(0, true);
  qemu_.Ask(blocks_[0].name, page);
  qemu_.AwaitPage(blocks_[0].name, page);
  EXPECT_TRUE(server_->HasNotedAll());
  EXPECT_TRUE(server_->NeededFirst().empty());
  qemu_.HangUp();
  EXPECT_NE(End(), "");
}

TEST_F(PageServerTest, AbsentPagesAreZeroWhenTheyAreAskedFor) {
  Start(kNoFill);
  const std::uint64_t page = FirstPage(0, false);
  qemu_.Ask(blocks_[0].name, page);
  qemu_.AwaitPage(blocks_[0].name, page);
  qemu_.HangUp();
  End();
  EXPECT_EQ(qemu_.pages.size(), 1U);
  EXPECT_TRUE(qemu_.pages.begin()->second.empty());
}

TEST_F(PageServerTest, WithoutFillingItEndsOnceAllHasBeenAskedFor) {
  Start(kNoFill);
  for (const PostcopyBlock& block : blocks_) {
    for (std::uint64_t page = 0; page < block.pages(); ++page) qemu_.Ask(block.name, page);
  }
  qemu_.AwaitEnd();
  qemu_.SayDone();
  EXPECT_EQ(End(), "");
  ExpectAllPagesOnce();
}

TEST_F(PageServerTest, AfterARecoveryOnlyTheRestIsSent) {
  ServeStart start;
  const Image image(path_);
  for (const StreamBlock& block : image.contents().blocks) start.received.push_back(block.present);
  const std::uint64_t page = FirstPage(0, true);
  start.received[0].Clear(page);
  Start({}, std::move(start));
  qemu_.AwaitEnd();
  qemu_.SayDone();
  EXPECT_EQ(End(), "");
  ASSERT_EQ(qemu_.order.size(), 1U);
  EXPECT_EQ(qemu_.order.front(), PageKey(blocks_[0].name, page));
}

// Seen on QEMU 10: its main thread, which loads the devices, waited for a zero page behind the stream's end.
TEST_F(PageServerTest, DoesNotEndBeforeQemuHasItsDevices) {
  Start({}, {.has_devices = false});
  for (std::size_t i = 0; i < blocks_.size(); ++i) {
    for (std::uint64_t page = 0; page < blocks_[i].pages(); ++page) {
      if (guest_.IsPresent(i, page)) qemu_.AwaitPage(blocks_[i].name, page);
    }
  }
  const std::uint64_t zero = FirstPage(0, false);
  qemu_.Ask(blocks_[0].name, zero);
  qemu_.AwaitPage(blocks_[0].name, zero);
  EXPECT_FALSE(qemu_.ended);

  server_->LetEnd();

  qemu_.AwaitEnd();
  qemu_.SayDone();
  EXPECT_EQ(End(), "");
  ExpectAllPagesOnce();
}

TEST_F(PageServerTest, DamagedChunkIsNeverSentAndTheRestIs) {
  const std::uint64_t page = FirstPage(0, true);
  const FlippedBit damage(path_,
                          Image(path_).contents().blocks[0].mapped_ram->pages_offset + ByteCount{page * kPageBytes}, 1);
  Start(kNoFill);
  qemu_.Ask(blocks_[0].name, page);
  while (!server_->obstacle()) std::this_thread::yield();
  EXPECT_EQ(server_->obstacle()->kind(), ErrorKind::kDamaged);
  EXPECT_NE(std::string(server_->obstacle()->what()).find("RAM block " + blocks_[0].name), std::string::npos);
  const std::uint64_t zero = FirstPage(0, false);
  qemu_.Ask(blocks_[0].name, zero);
  qemu_.AwaitPage(blocks_[0].name, zero);
  qemu_.HangUp();
  End();
  EXPECT_FALSE(qemu_.pages.contains({blocks_[0].name, page}));
}

TEST_F(PageServerTest, WhatCannotBeReadIsToldAndTheRestIsServedOn) {
  image_.emplace(path_);
  Truncate(path_, image_->contents().blocks[0].mapped_ram->pages_offset.value() + 1);
  Start();
  while (!server_->obstacle()) std::this_thread::yield();
  qemu_.Ask(blocks_[0].name, FirstPage(0, true));
  const std::uint64_t zero = FirstPage(0, false);
  qemu_.Ask(blocks_[0].name, zero);
  qemu_.AwaitPage(blocks_[0].name, zero);
  qemu_.HangUp();
  End();
}

TEST_F(PageServerTest, EndsNothingThatWasStoppedBeforeQemuHadItsDevices) {
  Start({}, {.has_devices = false});
  while (server_->figures().left.value() != 0) std::this_thread::yield();
  qemu_.HangUp();
  EXPECT_NE(End().find("QEMU has closed the connection"), std::string::npos);
  EXPECT_FALSE(qemu_.ended);
}

TEST_F(PageServerTest, RefusesRequestsForWhatIsNotThere) {
  Start(kNoFill);
  qemu_.Ask("nobody", 0);
  EXPECT_NE(End().find("RAM block nobody that is not there"), std::string::npos);
}

TEST_F(PageServerTest, QemuThatSaysItIsDoneTooEarlyHasGivenUp) {
  Start(kNoFill);
  qemu_.SayDone();
  EXPECT_NE(End().find("QEMU gave up"), std::string::npos);
  EXPECT_FALSE(server_->done());
}

TEST_F(PageServerTest, FillingKeepsToItsRateAndDemandsDoNot) {
  Start({true, ByteCount{4096}});
  const std::uint64_t page = FirstPage(1, true);
  qemu_.Ask(blocks_[1].name, page);
  qemu_.AwaitPage(blocks_[1].name, page);
  EXPECT_GT(server_->figures().left, ByteCount{0});
  qemu_.HangUp();
  End();
}

}  // namespace
}  // namespace vmsave
