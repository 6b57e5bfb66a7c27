// The text of QMP's messages, and of what the human monitor prints.
#include <algorithm>

#include "format/printable.h"
#include "qemu/memory_tree.h"
#include "qemu/qmp_message.h"
#include "tests/fuzz/fuzz_target.h"

namespace vmsave {
namespace {

void TakeMessage(std::string_view line) {
  const nlohmann::json message = ParseQmp(line);
  if (message.is_discarded()) return;
  if (const auto version = GreetingVersion(message)) {
    Require(version->major >= 0 && version->minor >= 0 && version->micro >= 0);
  }
  if (const auto time = EventTime(message)) Require(time->count() >= 0);
  StringMember(message, "event");
  Succeeds([&] { QmpRequest("command", message, 1, "cannot ask"); });
}

void TakePrintable(std::string_view text) {
  const std::string shown = Printable(text);
  Require(std::ranges::none_of(shown, [](char c) { return (c >= 0 && c < ' ') || c == 0x7f; }));
  Require(Printable(shown) == shown);
}

void TakeMemoryTree(std::string_view text) {
  for (const RamSection& section : ReadMemoryTree(text)) {
    ReadHostAddress(text, section.address, section.region);
  }
}

}  // namespace
}  // namespace vmsave

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const vmsave::FuzzInput input(data, size);
  const std::string text(reinterpret_cast<const char*>(input.bytes.data()), input.bytes.size());
  switch (input.choice % 4) {
    case 0:
      vmsave::TakeMessage(text);
      break;
    case 1:
      vmsave::TakePrintable(text);
      break;
    case 2:
      vmsave::TakeMemoryTree(text);
      break;
    default:
      vmsave::ReadHostAddress(text, vmsave::GuestAddress{0}, "pc.ram");
  }
  return 0;
}
