// A small guest whose pages are sent to a store: one by one, or in batches over several channels.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <random>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "format/save_header.h"
#include "io/channels.h"
#include "tests/writer/small_guest.h"
#include "writer/page_store.h"

namespace vmsave {

inline ArrivingGuest Arriving(const GuestImage& guest) {
  ArrivingGuest arriving{guest.frame, {}, guest.description, guest.was_running};
  for (const RamBlock& block : guest.blocks) arriving.blocks.push_back({block.name, block.length()});
  return arriving;
}

// Where a version 3 image of it has what.
inline FixedOffsetLayout LayOutOf(const ArrivingGuest& guest) {
  const FileOffset stream_start{kSaveHeaderBytes + EncodeDescription(guest.description).size()};
  return LayOutFixedOffsets(stream_start, guest.frame, guest.blocks);
}

inline std::vector<PageIndex> Pages(const std::vector<std::uint64_t>& numbers) {
  std::vector<PageIndex> pages;
  for (const std::uint64_t number : numbers) pages.emplace_back(number);
  return pages;
}

// Those from `first` to before `end`.
inline std::vector<PageIndex> PagesBetween(std::uint64_t first, std::uint64_t end) {
  std::vector<PageIndex> pages;
  for (std::uint64_t page = first; page < end; ++page) pages.emplace_back(page);
  return pages;
}

inline std::vector<std::byte> BytesOfPages(const RamBlock& block, std::span<const PageIndex> pages) {
  ByteWriter bytes;
  for (const PageIndex page : pages) bytes.Append(block.memory.subspan(PagesToBytes(page).value(), kPageBytes));
  return bytes.Take();
}

// The pieces have room for just these bytes.
inline void FillPieces(std::span<const iovec> pieces, std::span<const std::byte> bytes) {
  for (const iovec& piece : pieces) {
    ASSERT_LE(piece.iov_len, bytes.size());
    std::memcpy(piece.iov_base, bytes.data(), piece.iov_len);
    bytes = bytes.subspan(piece.iov_len);
  }
  ASSERT_TRUE(bytes.empty());
}

// The bytes are of pages in this order.
inline void SendBytes(PageChannel& channel, std::size_t block, std::span<const PageIndex> pages,
                      std::span<const std::byte> bytes) {
  FillPieces(channel.Place(block, pages), bytes);
  channel.Commit();
}

// Pages as the guest has them.
inline void SendPages(PageChannel& channel, const GuestImage& guest, std::size_t block,
                      std::span<const PageIndex> pages) {
  SendBytes(channel, block, pages, BytesOfPages(guest.blocks[block], pages));
}

// The same pages, filled with that byte.
inline void SendFilled(PageChannel& channel, std::size_t block, std::span<const PageIndex> pages, std::byte fill) {
  SendBytes(channel, block, pages, std::vector<std::byte>(pages.size() * kPageBytes, fill));
}

struct PageBatch {
  std::size_t block;
  std::vector<PageIndex> present;
  std::vector<PageIndex> zero;
};

enum class InBatch { kAscending, kAnyOrder };

// Every page once, in batches of up to `largest` pages, which come in any order.
inline std::vector<PageBatch> ShuffledBatches(const SmallGuest& guest, std::size_t largest, InBatch order,
                                              std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<PageBatch> batches;
  for (std::size_t block = 0; block < guest.image().blocks.size(); ++block) {
    std::vector<PageIndex> pages = PagesBetween(0, guest.image().blocks[block].pages());
    if (order == InBatch::kAnyOrder) std::ranges::shuffle(pages, random);
    for (std::span<const PageIndex> rest = pages; !rest.empty();) {
      const std::size_t count = std::min<std::size_t>(rest.size(), 1 + random() % largest);
      PageBatch& batch = batches.emplace_back(PageBatch{block, {}, {}});
      for (const PageIndex page : rest.first(count)) {
        (guest.IsPresent(block, page.value()) ? batch.present : batch.zero).push_back(page);
      }
      rest = rest.subspan(count);
    }
  }
  std::ranges::shuffle(batches, random);
  return batches;
}

// The pages as the guest has them.
inline void Deliver(PageChannel& channel, const GuestImage& guest, const PageBatch& batch) {
  if (!batch.present.empty()) SendPages(channel, guest, batch.block, batch.present);
  if (!batch.zero.empty()) channel.Zero(batch.block, batch.zero);
}

// Other bytes for pages that are zero, and zero for those that are not.
inline void DeliverSomethingElse(PageChannel& channel, const PageBatch& batch) {
  if (!batch.zero.empty()) SendFilled(channel, batch.block, batch.zero, std::byte{0x77});
  if (!batch.present.empty()) channel.Zero(batch.block, batch.present);
}

// Over all channels at the same time, which then settle and go.
inline void DeliverAll(PageStore& store, unsigned channels, const std::vector<PageBatch>& batches,
                       const std::function<void(PageChannel&, const PageBatch&)>& deliver) {
  WorkQueue queue(batches.size());
  RunChannels(channels, Interrupt(), [&](const ChannelContext&) {
    const std::unique_ptr<PageChannel> channel = store.OpenChannel();
    while (const auto number = queue.Take()) deliver(*channel, batches[*number]);
    channel->Settle();
  });
}

inline void DeliverAll(PageStore& store, unsigned channels, const GuestImage& guest,
                       const std::vector<PageBatch>& batches) {
  DeliverAll(store, channels, batches,
             [&](PageChannel& channel, const PageBatch& batch) { Deliver(channel, guest, batch); });
}

// Runs `action`, which must throw Error{kFailed} with `words` somewhere in its message.
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

}  // namespace vmsave
