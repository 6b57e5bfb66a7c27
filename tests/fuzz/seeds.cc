// Writes what each fuzz target starts from: the golden bytes of the unit tests, small streams and images of our own
// making, and the images that are named.
// Usage: fuzz_seeds DIRECTORY [IMAGE...]
#include <array>
#include <exception>
#include <iostream>

#include "format/mapped_ram.h"
#include "format/multifd_packet.h"
#include "format/save_header.h"
#include "format/working_set.h"
#include "tests/format/golden.h"
#include "tests/fuzz/image_seeds.h"
#include "tests/fuzz/seed_directory.h"

namespace vmsave {
namespace {

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

void AddHeaders(const SeedDirectory& seeds) {
  seeds.Add("header2", 0, Hex(golden::kHeaderV2));
  seeds.Add("header3", 0, Hex(golden::kHeaderV3));
  seeds.Add("description", 1, Join({ToBytes(golden::kDescription), Bytes(10)}));
  SaveHeader header =
      DecodeSaveHeader(std::span<const std::byte>(Hex(golden::kHeaderV3)).first<kSaveHeaderBytes>(), "");
  header.data_length = 40;
  header.cookie_offset = 12;
  Bytes before_stream = Join({EncodeSaveHeader(header), ToBytes(golden::kDescription), Bytes(31)});
  Place(before_stream, kSaveHeaderBytes + 12, ToBytes("<cookie/>"));
  seeds.Add("cookie", 2, before_stream);
  seeds.Add("end", 3, Hex(golden::kDeviceState));
}

void AddTables(const SeedDirectory& seeds) {
  const Bytes table = Hex(golden::kIntegrityTable);
  seeds.Add("open", 0, std::span(table).first(table.size() - 8));
  seeds.Add("sealed", 1, table);
}

void AddBlockLists(const SeedDirectory& seeds) {
  ByteWriter header;
  AppendMappedRamHeader(header, {FileOffset{4096}, FileOffset{8192}});
  seeds.Add("header", 0, header.Take());
  seeds.Add("bitmap", 1, Hex(golden::kBitmap));
  ByteWriter list;
  list.AppendLittleEndian(std::uint64_t{8192} << 8 | 1);
  list.AppendLittleEndian(std::uint64_t{8192});
  AppendMappedRamHeader(list, {FileOffset{200}, FileOffset{4096}});
  list.AppendZeros(20000);
  const Bytes bytes = list.Take();
  seeds.Add("file", 2, bytes);
  seeds.Add("socket", 3, bytes);
}

void AddQmpMessages(const SeedDirectory& seeds) {
  const auto add = [&](const std::string& name, char choice, std::string_view text) {
    seeds.Add(name, choice, AsBytes(text));
  };
  add("greeting", 0,
      R"({"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": "x"}, "capabilities": []}})");
  add("event", 0, R"({"timestamp": {"seconds": 1700000000, "microseconds": 999999}, "event": "STOP"})");
  add("error", 0, R"({"id": 1, "error": {"class": "GenericError", "desc": "no"}})");
  add("printable", 1, "a\tb\x7f\xff");
  add("tree", 2,
      "FlatView #0\n AS \"memory\", root: system\n Root memory region: system\n"
      "  0000000000000000-00000000000bffff (prio 0, ram): pc.ram KVM\n"
      "  0000000100000000-000000017fffffff (prio 0, nv-ram): pc.ram @0000000080000000 KVM\n");
  add("address", 3, "Host virtual address for 0x0 (pc.ram) is 0x7f0000000000\r\n");
}

constexpr std::string_view kWelcome =
    R"({"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": "x"}, "capabilities": []}})"
    "\n"
    R"({"return": {}, "id": @})"
    "\n";

std::string Reply(std::string_view value) {
  return R"({"return": )" + std::string(value) + ", \"id\": @}\n";
}

// As QEMU 10.0 answers.
void AddQmpTalks(const SeedDirectory& seeds) {
  const auto add = [&](const std::string& name, char what, const std::string& replies) {
    seeds.Add(name, what, AsBytes(std::string(kWelcome) + replies));
  };
  const std::string migration = Reply(
      R"({"status": "active", "downtime": 3, "total-time": 20, "ram": {"total": 8192, "remaining": 4096}, "error-desc": "x"})");
  add("migration", 0, migration + Reply(R"({"status": "completed"})"));
  add("failed", 0, R"({"error": {"class": "GenericError", "desc": "no"}, "id": @})" + std::string("\n"));
  add("guest", 1,
      Reply(R"({"name": "demo"})") + Reply(R"({"UUID": "00000000-0000-0000-0000-000000000000"})") +
          Reply(R"("pc-i440fx-10.0-machine")") + Reply(R"({"base-memory": 134217728, "plugged-memory": 0})") +
          Reply(R"([{"cpu-index": 0}])") + Reply(R"({"enabled": false, "present": true})") +
          Reply(R"({"status": "running", "running": true})"));
  const std::string backends = Reply(R"([{"id": "pc.ram", "size": 4096, "share": true}])") +
                               Reply(R"("memory-backend-file")") + Reply("true") + Reply(R"("/dev/shm/vm1")");
  add("backends", 2, backends);
  add("gone", 3, Reply(R"({"status": "completed"})") + Reply(R"([{"type": "migration"}, {"type": "chardev"}])"));
  add("text", 4, Reply(R"("FlatView #0\r\n AS \"memory\", root: system\r\n")"));
  add("events", 5,
      R"({"timestamp": {"seconds": 17, "microseconds": 9}, "event": "RESUME"})"
      "\n"
      R"({"timestamp": {"seconds": 18, "microseconds": 9}, "event": "STOP"})"
      "\n");
  add("mapped", 6,
      backends + Reply(R"("FlatView #0\r\n AS \"memory\", root: system\r\n  0000-0fff (prio 0, ram): pc.ram\r\n")") +
          Reply(R"("Host virtual address for 0x0 (pc.ram) is 0x7f0000000000\r\n")"));
  add("closed", 7, migration);
}

// A request, a bitmap of 256 pages, the acceptance of a recovery, the end.
void AddAnswers(const SeedDirectory& seeds) {
  const Bytes request = Join({Hex("0003"
                                  "0013"
                                  "0000000000001000"
                                  "00001000"
                                  "06"),
                              ToBytes("pc.ram")});
  const Bytes bitmap = Join({Hex("0005"
                                 "0007"
                                 "06"),
                             ToBytes("pc.ram"), Hex("0000000000000020"), Bytes(32), Hex("0123456789abcdef")});
  seeds.Add("request", '\xff', request);
  seeds.Add("again", '\xff',
            Join({request, Hex("0004"
                               "000c"
                               "0000000000002000"
                               "00001000")}));
  seeds.Add("bitmap", '\x0f', bitmap);
  seeds.Add("resume", '\x0f',
            Join({bitmap,
                  Hex("0006"
                      "0004"
                      "00000001"),
                  request}));
  seeds.Add("end", '\xff',
            Join({request, Hex("0001"
                               "0004"
                               "00000000")}));
}

void AddWorkingSets(const SeedDirectory& seeds) {
  seeds.Add("empty", 0, EncodeWorkingSet({7, {}}));
  seeds.Add("runs", 1, EncodeWorkingSet({7, {{0, 2, 40}, {1, 1, 0}}}));
}

void AddConfigurations(const SeedDirectory& seeds) {
  seeds.AddText("all",
                "# a comment\nsave_image_version = 3\nparallel = 4;\nbypass_cache = true\nio_engine = \"uring\"\n");
  seeds.AddText("types", "a = 0x1F; b = 1.5e3, c = 10L; d = [1, 2]; e = ( { f = \"g\" \"h\\x20\" } ) /* i */ // j\n");
  seeds.AddText("include", "@include \"/nowhere\"\n");
}

}  // namespace
}  // namespace vmsave

int main(int count, char** arguments) {
  if (count < 2) {
    std::cerr << "Usage: fuzz_seeds DIRECTORY [IMAGE...]\n";
    return 2;
  }
  try {
    const std::filesystem::path parent = arguments[1];
    vmsave::AddPackets({parent, "multifd_packets"});
    vmsave::AddStreams({parent, "stream_reader"});
    vmsave::AddHeaders({parent, "save_header"});
    vmsave::AddTables({parent, "integrity_table"});
    vmsave::AddBlockLists({parent, "mapped_ram"});
    vmsave::AddQmpMessages({parent, "qmp_messages"});
    vmsave::AddQmpTalks({parent, "qmp_client"});
    vmsave::AddAnswers({parent, "return_path"});
    vmsave::AddWorkingSets({parent, "working_set"});
    vmsave::AddConfigurations({parent, "configuration"});
    vmsave::AddOwnImages(parent);
    for (int i = 2; i < count; ++i) vmsave::AddRealImage(parent, arguments[i]);
  } catch (const std::exception& error) {
    std::cerr << "fuzz_seeds: " << error.what() << '\n';
    return 1;
  }
  return 0;
}
