// A guest's pages as they arrive: in batches, each of which is given to a channel of a store.
#pragma once

#include <algorithm>
#include <cstring>
#include <numeric>
#include <random>
#include <span>
#include <vector>

#include "tests/writer/small_guest.h"
#include "writer/page_store.h"

namespace vmsave {

inline ArrivingGuest Announce(const GuestImage& guest) {
  ArrivingGuest arriving{guest.frame, {}, guest.description, guest.was_running};
  for (const RamBlock& block : guest.blocks) arriving.blocks.push_back({block.name, block.length()});
  return arriving;
}

struct PageBatch {
  std::size_t block;
  std::vector<PageIndex> present;
  std::vector<PageIndex> zero;
};

// Every page once, in random order and batches of random size.
inline std::vector<PageBatch> ShuffledBatches(const SmallGuest& guest, std::mt19937_64& random) {
  std::vector<PageBatch> batches;
  for (std::size_t block = 0; block < guest.image().blocks.size(); ++block) {
    std::vector<std::uint64_t> pages(guest.image().blocks[block].pages());
    std::iota(pages.begin(), pages.end(), 0);
    std::ranges::shuffle(pages, random);
    for (std::span<const std::uint64_t> rest = pages; !rest.empty();) {
      const std::size_t count = std::min(rest.size(), 1 + random() % PageChannel::kMaxPages);
      PageBatch& batch = batches.emplace_back(PageBatch{block, {}, {}});
      for (const std::uint64_t page : rest.first(count)) {
        (guest.IsPresent(block, page) ? batch.present : batch.zero).emplace_back(page);
      }
      rest = rest.subspan(count);
    }
  }
  std::ranges::shuffle(batches, random);
  return batches;
}

// REQUIRES: as many bytes as the pieces have room for.
inline void FillPieces(std::span<const iovec> pieces, std::span<const std::byte> bytes) {
  for (const iovec& piece : pieces) {
    std::memcpy(piece.iov_base, bytes.data(), piece.iov_len);
    bytes = bytes.subspan(piece.iov_len);
  }
}

inline std::vector<std::byte> BytesOfPages(const RamBlock& block, std::span<const PageIndex> pages) {
  ByteWriter bytes;
  for (const PageIndex page : pages) bytes.Append(block.memory.subspan(PagesToBytes(page).value(), kPageBytes));
  return bytes.Take();
}

// Gives the pages with the bytes that the guest has.
inline void Deliver(PageChannel& channel, const GuestImage& guest, const PageBatch& batch) {
  if (!batch.present.empty()) {
    FillPieces(channel.Place(batch.block, batch.present), BytesOfPages(guest.blocks[batch.block], batch.present));
    channel.Commit();
  }
  if (!batch.zero.empty()) channel.Zero(batch.block, batch.zero);
}

// Gives other bytes to pages that are zero, and makes pages zero that are not.
inline void DeliverSomethingElse(PageChannel& channel, const PageBatch& batch) {
  if (!batch.zero.empty()) {
    FillPieces(channel.Place(batch.block, batch.zero),
               std::vector<std::byte>(batch.zero.size() * kPageBytes, std::byte{0x77}));
    channel.Commit();
  }
  if (!batch.present.empty()) channel.Zero(batch.block, batch.present);
}

}  // namespace vmsave
