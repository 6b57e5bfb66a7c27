// Writes what each fuzz target starts from: the golden bytes of the unit tests, and small streams of our own making.
// Usage: fuzz_seeds DIRECTORY
#include <array>
#include <exception>
#include <filesystem>
#include <fstream>
#include <iostream>

#include "format/mapped_ram.h"
#include "format/multifd_packet.h"
#include "tests/format/golden.h"

namespace vmsave {
namespace {

// The seeds of one target.
class SeedDirectory {
 public:
  SeedDirectory(const std::filesystem::path& parent, const std::string& target) : path_(parent / target) {
    std::filesystem::create_directories(path_);
  }

  // `choice`: the input's first byte.
  void Add(const std::string& name, char choice, std::span<const std::byte> bytes) const {
    std::ofstream file(path_ / name, std::ios::binary);
    file.put(choice);
    file.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
    if (!file.flush()) throw std::runtime_error("cannot write " + (path_ / name).string());
  }

 private:
  std::filesystem::path path_;
};

void AddPackets(const SeedDirectory& seeds) {
  std::array<std::byte, kMultifdPacketBytes> bytes{};
  MultifdPacket packet;
  packet.Start(1, "pc.ram");
  packet.set_sync(true);
  packet.Encode(bytes);
  seeds.Add("sync", 0, bytes);
  packet.Start(2, "pc.ram");
  for (std::uint64_t page = 0; page < 100; ++page) packet.AddNormal(PageIndex{page * 3});
  for (std::uint64_t page = 0; page < 28; ++page) packet.AddZero(PageIndex{page * 3 + 1});
  packet.Encode(bytes);
  seeds.Add("pages", 0, bytes);
  seeds.Add("hello", 1, EncodeMultifdHello({{}, 3}));
}

StreamFrame SmallFrame() {
  return {"pc-i440fx-10.0", 2, true};
}

Bytes MappedStream() {
  const FixedOffsetLayout layout = LayOutFixedOffsets(FileOffset{0}, SmallFrame(), {{"pc.ram", ByteCount{8192}}});
  return layout.stream_parts.front().bytes;  // its pages would lie 1 MiB behind
}

// As a version 3 image has it, but for the gap in front of the pages.
Bytes SmallMappedStream() {
  constexpr std::size_t kPagesOffset = 8192;
  Bytes stream = MappedStream();
  ByteWriter offset;
  offset.AppendBigEndian(std::uint64_t{kPagesOffset});
  Place(stream, stream.size() - 8, offset.Take());
  Place(stream, stream.size(), Hex(golden::kBitmap));
  Place(stream, kPagesOffset + kPageBytes, golden::Page1());
  ByteWriter end;
  AppendRamSectionEnd(end, SmallFrame());
  AppendRamEnd(end, SmallFrame());
  return Join({stream, end.Take(), Hex(golden::kDeviceState)});
}

Bytes ZeroPagesAndFlushes() {
  ByteWriter out;
  AppendLegacyHead(out, SmallFrame(),
                   std::array{BlockShape{"pc.ram", ByteCount{8192}}, BlockShape{"rom", ByteCount{4096}}});
  out.Append(MakeRecordHead("rom", PageIndex{0}, false, false).bytes());
  out.AppendZeros(1);
  out.AppendBigEndian(std::uint64_t{ram_flag::kMultifdFlush});
  AppendLegacyTail(out, SmallFrame(), Hex(golden::kDeviceState));
  return out.Take();
}

// `ignored_byte`: as QEMU 4.0 has one behind each address.
Bytes IgnoreShared(bool ignored_byte) {
  ByteWriter out;
  AppendStreamStart(out, SmallFrame(), std::array{kIgnoreSharedCapability}, ByteCount{4096});
  AppendBlockEntry(out, "pc.ram", ByteCount{4096});
  out.AppendBigEndian(std::uint64_t{0});  // address
  if (ignored_byte) out.AppendZeros(1);
  AppendRamSectionEnd(out, SmallFrame());
  AppendRamEnd(out, SmallFrame());
  return out.Take();
}

void AddStreams(const SeedDirectory& seeds) {
  for (const char choice : {char{0}, char{1}, char{2}}) {
    const std::string suffix = std::to_string(choice);
    seeds.Add("golden" + suffix, choice, golden::LegacyStream());
    seeds.Add("mapped" + suffix, choice, SmallMappedStream());
    seeds.Add("zero" + suffix, choice, ZeroPagesAndFlushes());
    seeds.Add("ignore-shared" + suffix, choice, IgnoreShared(choice == 2));
  }
}

void AddImageParts(const SeedDirectory& seeds) {
  seeds.Add("header2", 0, Hex(golden::kHeaderV2));
  seeds.Add("header3", 0, Hex(golden::kHeaderV3));
  seeds.Add("description", 1, Join({ToBytes(golden::kDescription), Bytes(10)}));
  const Bytes table = Hex(golden::kIntegrityTable);
  seeds.Add("table", 2, std::span(table).first(table.size() - 8));
  seeds.Add("end", 3, Hex(golden::kDeviceState));
}

}  // namespace
}  // namespace vmsave

int main(int count, char** arguments) {
  if (count != 2) {
    std::cerr << "Usage: fuzz_seeds DIRECTORY\n";
    return 2;
  }
  try {
    const std::filesystem::path parent = arguments[1];
    vmsave::AddPackets({parent, "multifd_packets"});
    vmsave::AddStreams({parent, "stream_reader"});
    vmsave::AddImageParts({parent, "save_image"});
  } catch (const std::exception& error) {
    std::cerr << "fuzz_seeds: " << error.what() << '\n';
    return 1;
  }
  return 0;
}
