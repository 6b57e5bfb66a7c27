// The sending end of a multifd migration, as a test wants it: as QEMU does it, or wrong.
#pragma once

#include <gtest/gtest.h>
#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <array>
#include <string>
#include <thread>
#include <vector>

#include "format/multifd_packet.h"
#include "format/qemu_stream.h"
#include "qemu/multifd_sockets.h"
#include "tests/format/byte_strings.h"

namespace vmsave {

// Returns where the other end wants no more.
inline void SendAll(const FileDescriptor& socket, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t sent = ::send(socket.number(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent < 0) return;
    bytes = bytes.subspan(static_cast<std::size_t>(sent));
  }
}

// Returns when the other end has read all that was sent.
inline void WaitUntilRead(const FileDescriptor& socket) {
  for (int unread = 1; unread > 0;) {
    ASSERT_EQ(::ioctl(socket.number(), SIOCOUTQ, &unread), 0);
    std::this_thread::yield();
  }
}

// Socket pairs: one for the main stream, one for each channel.
class MultifdPeer {
 public:
  explicit MultifdPeer(unsigned channels) {
    std::tie(main_, receiving_.main) = MakePair("the guest's migration stream");
    for (unsigned i = 0; i < channels; ++i) {
      auto [here, there] = MakePair("multifd channel " + std::to_string(i));
      channels_.push_back(std::move(here));
      receiving_.channels.push_back(std::move(there));
    }
  }

  MultifdSockets TakeReceivingEnds() { return std::move(receiving_); }

  FileDescriptor& main() { return main_; }
  FileDescriptor& channel(std::size_t number) { return channels_[number]; }

  void SendMain(std::span<const std::byte> bytes) { SendAll(main_, bytes); }
  void SendChannel(std::size_t number, std::span<const std::byte> bytes) { SendAll(channels_[number], bytes); }
  void SendEachChannel(std::span<const std::byte> bytes) {
    for (const FileDescriptor& channel : channels_) SendAll(channel, bytes);
  }

  void CloseAll() {
    main_ = FileDescriptor();
    for (FileDescriptor& channel : channels_) channel = FileDescriptor();
  }

 private:
  static std::pair<FileDescriptor, FileDescriptor> MakePair(const std::string& name) {
    std::array<int, 2> ends{};
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) != 0) {
      throw Error::FromErrno("socketpair", errno);
    }
    return {FileDescriptor(ends[0], "sender of " + name), FileDescriptor(ends[1], name)};
  }

  FileDescriptor main_;
  std::vector<FileDescriptor> channels_;
  MultifdSockets receiving_;
};

// Pieces of what is sent.

inline Bytes EncodePacket(const MultifdPacket& packet) {
  Bytes bytes(kMultifdPacketBytes);
  packet.Encode(std::span(bytes).first<kMultifdPacketBytes>());
  return bytes;
}

inline Bytes SyncPacket() {
  MultifdPacket packet;
  packet.Start(0, "");
  packet.set_sync(true);
  return EncodePacket(packet);
}

// A packet alone; the bytes of its pages are to follow.
inline Bytes PagesPacket(std::string_view block, const std::vector<std::uint64_t>& pages) {
  MultifdPacket packet;
  packet.Start(7, block);
  for (const std::uint64_t page : pages) packet.AddNormal(PageIndex{page});
  return EncodePacket(packet);
}

inline Bytes FilledPage(std::uint8_t fill) {
  return Bytes(kPageBytes, static_cast<std::byte>(fill));
}

inline Bytes MultifdFlush() {
  ByteWriter out;
  out.AppendBigEndian(std::uint64_t{ram_flag::kMultifdFlush});
  return out.Take();
}

inline Bytes ZeroRecord(std::string_view block, std::uint64_t page) {
  const RecordHead head = MakeRecordHead(block, PageIndex{page}, false, false);
  return Join({head.bytes(), Bytes(1)});
}

inline Bytes PageRecord(std::string_view block, std::uint64_t page, std::span<const std::byte> content) {
  return Join({MakeRecordHead(block, PageIndex{page}, true, false).bytes(), content});
}

// From the magic to behind the block list; its section stays open.
inline Bytes StreamStart(const StreamFrame& frame, const std::vector<BlockShape>& blocks) {
  ByteCount total;
  for (const BlockShape& block : blocks) total += block.length;
  ByteWriter out;
  AppendStreamStart(out, frame, {}, total);
  for (const BlockShape& block : blocks) AppendBlockEntry(out, block.name, block.length);
  return out.Take();
}

inline Bytes OpenPart(const StreamFrame& frame) {
  ByteWriter out;
  AppendRamPart(out, frame);
  return out.Take();
}

inline Bytes EndOfSection(const StreamFrame& frame) {
  ByteWriter out;
  AppendRamSectionEnd(out, frame);
  return out.Take();
}

// An empty END.
inline Bytes EndOfRam(const StreamFrame& frame) {
  ByteWriter out;
  AppendRamEnd(out, frame);
  return out.Take();
}

}  // namespace vmsave
