#include "writer/synthetic_guest.h"

#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "format/bytes.h"

namespace vmsave {
namespace {

constexpr std::string_view kBlockName = "pc.ram";
constexpr std::string_view kDeviceDescription = R"({"devices": []})";

// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators").
std::uint64_t NextRandom(std::uint64_t& state) {
  std::uint64_t value = state += 0x9e3779b97f4a7c15;
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9;
  value = (value ^ (value >> 27)) * 0x94d049bb133111eb;
  return value ^ (value >> 31);
}

// Runs of this many pages are zero or present together, as a guest's are more often than not.
constexpr std::uint64_t kRunPages = 32;

void FillPage(std::span<std::byte> page, std::uint64_t state) {
  for (std::size_t at = 0; at < page.size(); at += sizeof(std::uint64_t)) {
    const std::uint64_t value = NextRandom(state);
    std::memcpy(page.data() + at, &value, sizeof value);
  }
}

void Fill(std::span<std::byte> memory, const SyntheticShape& shape) {
  for (std::uint64_t page = 0; page < memory.size() / kPageBytes; ++page) {
    std::uint64_t run_state = shape.seed ^ (page / kRunPages << 20);
    if (NextRandom(run_state) % 100 < shape.zero_percent) continue;
    std::uint64_t page_state = shape.seed;
    page_state = NextRandom(page_state) + page;
    FillPage(memory.subspan(page * kPageBytes, kPageBytes), NextRandom(page_state));
  }
}

FileDescriptor MakeMemoryFile(ByteCount size) {
  FileDescriptor file(::memfd_create("synthetic guest", MFD_CLOEXEC), "synthetic guest");
  if (!file.valid() || ::ftruncate(file.number(), static_cast<off_t>(size.value())) != 0) {
    throw Error::FromErrno(fmt::format("cannot get {} bytes of memory for a synthetic guest", size.value()), errno);
  }
  return file;
}

// What QEMU ends a stream with: EOF and VMDESCRIPTION.
std::vector<std::byte> MakeDeviceState() {
  ByteWriter state;
  state.AppendBigEndian(static_cast<std::uint8_t>(SectionType::kEof));
  state.AppendBigEndian(static_cast<std::uint8_t>(SectionType::kVmDescription));
  state.AppendBigEndian(static_cast<std::uint32_t>(kDeviceDescription.size()));
  state.Append(kDeviceDescription);
  return state.Take();
}

}  // namespace

SyntheticGuest::SyntheticGuest(const SyntheticShape& shape)
    : file_(MakeMemoryFile(shape.size)),
      memory_(MemoryMapping::OfFile(file_, FileOffset{0}, shape.size, MemoryMapping::Access::kReadWrite)),
      device_state_(MakeDeviceState()) {
  Fill(memory_.bytes(), shape);
  image_.frame.machine = "synthetic";
  image_.blocks.push_back({std::string(kBlockName), memory_.bytes(), GuestAddress{0}, &file_, FileOffset{0}});
  image_.device_state = device_state_;
  image_.description = fmt::format(
      "<domain type='vmsave-synthetic'>\n  <name>synthetic</name>\n  <memory unit='b'>{}</memory>\n</domain>\n",
      shape.size.value());
}

}  // namespace vmsave
