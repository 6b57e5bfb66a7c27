// The receiving end of a multifd migration, for tests: what arrived is kept as it came, and then put together as QEMU
// would, in the order in which QEMU may do it at worst.
#pragma once

#include <gtest/gtest.h>

#include <deque>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "reader/multifd_sender.h"
#include "tests/format/byte_strings.h"

namespace vmsave {

// Which records of the main stream QEMU takes for sync points.
enum class QemuSyncs {
  kAtSections,           // QEMU <= 8.0: EOS; MULTIFD_FLUSH is an error
  kAtFlushes,            // QEMU >= 8.1 with a machine type of 8.1 or newer
  kAtFlushesAndSections  // QEMU >= 8.1 with an older machine type
};

inline SyncAt SyncAtFor(QemuSyncs syncs) {
  return syncs == QemuSyncs::kAtSections ? SyncAt::kEverySection : SyncAt::kFlush;
}

class MultifdCollector {
 public:
  explicit MultifdCollector(unsigned channels) : main_(*this) {
    for (unsigned i = 0; i < channels; ++i) channels_.emplace_back();
  }
  MultifdCollector(const MultifdCollector&) = delete;
  MultifdCollector& operator=(const MultifdCollector&) = delete;

  MultifdTarget receiver(SyncAt sync_at, std::set<std::string> zero_blocks) {
    MultifdTarget receiver{main_, {}, sync_at, std::move(zero_blocks)};
    for (ChannelSink& channel : channels_) receiver.channels.push_back(&channel);
    return receiver;
  }

  const Bytes& main() const { return main_.bytes; }
  const Bytes& channel(std::size_t number) const { return channels_[number].bytes; }
  std::size_t channel_count() const { return channels_.size(); }

  // How many SYNC packets every channel had been sent before that byte of the main stream.
  std::size_t SyncsBefore(std::size_t main_position) const {
    return std::prev(main_.syncs_at.upper_bound(main_position))->second;
  }

 private:
  struct Sink : ByteSink {
    using ByteSink::Write;
    void Write(std::span<const iovec> pieces) override {
      for (const iovec& piece : pieces) {
        const auto* from = static_cast<const std::byte*>(piece.iov_base);
        bytes.insert(bytes.end(), from, from + piece.iov_len);
      }
    }
    Bytes bytes;
  };
  struct ChannelSink : Sink {
    void Write(std::span<const iovec> pieces) override {
      const auto* packet = static_cast<const std::byte*>(pieces.front().iov_base);
      if (packet[11] != std::byte{0}) ++syncs;
      Sink::Write(pieces);
    }
    std::size_t syncs = 0;
  };
  struct MainSink : Sink {
    explicit MainSink(MultifdCollector& of) : collector(of) {}
    void Write(std::span<const iovec> pieces) override {
      std::size_t fewest = collector.channels_.front().syncs;
      for (const ChannelSink& channel : collector.channels_) fewest = std::min(fewest, channel.syncs);
      syncs_at[bytes.size()] = fewest;
      Sink::Write(pieces);
    }
    MultifdCollector& collector;
    std::map<std::size_t, std::size_t> syncs_at;
  };

  MainSink main_;
  std::deque<ChannelSink> channels_;
};

// Puts a guest's RAM together. Everything between two sync points may happen in any order: a page that is touched twice
// there fails the test.
class ReassembledGuest {
 public:
  // `fill`: what memory holds before, in blocks that are not in `zero_blocks`.
  ReassembledGuest(const MultifdCollector& collector, QemuSyncs syncs, const std::set<std::string>& zero_blocks,
                   std::byte fill)
      : syncs_(syncs), zero_blocks_(zero_blocks), fill_(fill) {
    ReadMain(collector);
    for (std::size_t i = 0; i < collector.channel_count(); ++i) ReadChannel(collector.channel(i));
    Replay();
  }

  const Bytes& memory(const std::string& block) const { return memory_.at(block); }
  const Bytes& device_state() const { return device_state_; }
  std::size_t sync_points() const { return sync_points_; }
  std::size_t zero_records() const { return zero_records_; }
  std::size_t packets() const { return packet_numbers_.size(); }

 private:
  using Page = std::pair<std::string, std::uint64_t>;
  struct Change {
    Page page;
    Bytes bytes;  // empty: zero
  };
  using Interval = std::vector<Change>;

  class Source : public ByteSource {
   public:
    explicit Source(const Bytes& bytes) : bytes_(bytes) {}
    std::size_t ReadSome(std::span<std::byte> out) override {
      const std::size_t count = std::min(out.size(), bytes_.size() - at_);
      std::copy_n(bytes_.begin() + static_cast<std::ptrdiff_t>(at_), count, out.begin());
      at_ += count;
      return count;
    }
    FileOffset position() const override { return FileOffset{at_}; }
    std::string_view name() const override { return "main stream"; }

   private:
    const Bytes& bytes_;
    std::size_t at_ = 0;
  };

  // Follows the main stream.
  class MainSink : public PageSink {
   public:
    MainSink(ReassembledGuest& guest, const Source& source, const MultifdCollector& collector)
        : guest_(guest), source_(source), collector_(collector) {}
    void OnBlocks(const StreamContents& contents) override {
      for (const StreamBlock& block : contents.blocks) {
        names_.push_back(block.name);
        const std::byte fill = guest_.zero_blocks_.contains(block.name) ? std::byte{0} : guest_.fill_;
        guest_.memory_.emplace(block.name, Bytes(block.length.value(), fill));
      }
    }
    std::span<std::byte> PageTarget(std::size_t, PageIndex) override {
      ADD_FAILURE() << "a page in the main stream";
      return {};
    }
    void OnZeroPage(std::size_t block, PageIndex page) override {
      ++guest_.zero_records_;
      guest_.ChangesIn(guest_.sync_points_).push_back({{names_[block], page.value()}, {}});
    }
    void OnEndOfRecords() override {
      if (guest_.syncs_ != QemuSyncs::kAtFlushes) SyncPoint();
    }
    void OnMultifdFlush() override {
      if (guest_.syncs_ == QemuSyncs::kAtSections) ADD_FAILURE() << "MULTIFD_FLUSH for a QEMU that does not know it";
      SyncPoint();
    }

   private:
    void SyncPoint() {
      ++guest_.sync_points_;
      EXPECT_GE(collector_.SyncsBefore(source_.position().value() - 1), guest_.sync_points_)
          << "QEMU would wait for a SYNC that was not sent yet";
    }
    ReassembledGuest& guest_;
    const Source& source_;
    const MultifdCollector& collector_;
    std::vector<std::string> names_;
  };

  Interval& ChangesIn(std::size_t number) {
    if (intervals_.size() <= number) intervals_.resize(number + 1);
    return intervals_[number];
  }

  void ReadMain(const MultifdCollector& collector) {
    Source source(collector.main());
    MainSink sink(*this, source, collector);
    ReadStreamUpToDevices(source, sink);
    device_state_ = ReadDeviceState(source);
  }

  void ReadChannel(const Bytes& bytes) {
    std::span<const std::byte> rest(bytes);
    std::size_t syncs = 0;
    MultifdPacket packet;
    while (!rest.empty()) {
      packet.Decode(rest.first(std::min(rest.size(), kMultifdPacketBytes)));
      rest = rest.subspan(kMultifdPacketBytes);
      EXPECT_TRUE(packet_numbers_.insert(packet.number()).second) << packet.number();
      EXPECT_TRUE(packet.zero_pages().empty()) << "QEMU does not clear them";
      if (packet.page_count() != 0) {
        EXPECT_GT(syncs, 0U) << "pages before the block list is in force";
        EXPECT_LT(syncs, sync_points_) << "pages that come when the guest is loaded already";
        packet.CheckPagesWithin(ByteCount{memory_.at(std::string(packet.block())).size()});
      }
      for (const PageIndex page : packet.normal_pages()) {
        const auto content = rest.first(kPageBytes);
        rest = rest.subspan(kPageBytes);
        ChangesIn(syncs).push_back({{std::string(packet.block()), page.value()}, {content.begin(), content.end()}});
      }
      if (packet.sync()) ++syncs;
    }
    if (syncs_ == QemuSyncs::kAtFlushes) {
      EXPECT_GE(syncs, sync_points_);
    } else {
      EXPECT_EQ(syncs, sync_points_);
    }
  }

  void Replay() {
    for (const Interval& interval : intervals_) {
      std::set<Page> touched;
      for (const Change& change : interval) {
        EXPECT_TRUE(touched.insert(change.page).second) << change.page.first << ":" << change.page.second;
        const std::span target = std::span(memory_.at(change.page.first)).subspan(change.page.second * 4096, 4096);
        std::ranges::fill(target, std::byte{0});
        std::ranges::copy(change.bytes, target.begin());
      }
    }
  }

  QemuSyncs syncs_;
  const std::set<std::string>& zero_blocks_;
  std::byte fill_;
  std::map<std::string, Bytes> memory_;
  Bytes device_state_;
  std::vector<Interval> intervals_;
  std::set<std::uint64_t> packet_numbers_;
  std::size_t sync_points_ = 0;
  std::size_t zero_records_ = 0;
};

}  // namespace vmsave
