// What an interrupted edit has left in an image, and what the next edit makes of it.
#include <algorithm>

#include "convert/description_edit.h"
#include "format/edit_record.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/fuzz/memory_file.h"
#include "tests/fuzz/seal.h"

namespace vmsave {
namespace {

enum class Act { kFinish, kReplace };

void TakeRecord(std::span<const std::byte> bytes) {
  constexpr ByteCount kLength{4096};
  if (const auto before_stream = DecodeEditRecord(bytes, kLength)) {
    Require(std::ranges::equal(EncodeEditRecord(*before_stream, kLength), bytes));
  }
}

// An edit that was begun with what ReadImageHead has told ends with an image that says the same, or the new text.
void Edit(const MemoryFile& image, Act act) {
  std::optional<ImageHead> before;
  if (!Takes([&] { before = ReadImageHead(image.file()); }) || !before) return;
  Require(before->before_stream.size() == (before->header.stream_start() - FileOffset{0}).value());
  std::string wanted;
  const bool edited = Succeeds([&] {
    DescriptionEdit edit(image.path());
    wanted = act == Act::kReplace ? "<domain id='1'/>" : edit.description();
    edit.Replace(wanted, "fuzz");
  });
  if (!edited) return;
  const std::optional<ImageHead> after = ReadImageHead(image.file());
  Require(after && after->edit == EditTrace::kNone && after->image_length == before->image_length);
  const auto data = std::span(after->before_stream).subspan(kSaveHeaderBytes);
  Require(DecodeDescription(data, "fuzz") == wanted);
}

}  // namespace
}  // namespace vmsave

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const vmsave::FuzzInput input(data, size);
  vmsave::TakeRecord(input.bytes);
  const vmsave::MemoryFile image(input.bytes);
  if ((input.choice & 1) == 0 && !input.bytes.empty()) vmsave::SealImage(image.Map().bytes());
  vmsave::Edit(image, (input.choice & 2) == 0 ? vmsave::Act::kReplace : vmsave::Act::kFinish);
  return 0;
}
