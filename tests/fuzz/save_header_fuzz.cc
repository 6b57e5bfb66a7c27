// What a save image has in front of its stream: header, description, cookie; and where the stream ends.
#include <algorithm>

#include "format/page_hash.h"
#include "format/qemu_stream.h"
#include "format/save_header.h"
#include "tests/fuzz/fuzz_target.h"

namespace vmsave {
namespace {

constexpr std::string_view kFile = "fuzz";

void TakeHeader(std::span<const std::byte> bytes) {
  if (bytes.size() < kSaveHeaderBytes) return;
  SaveHeader header;
  if (Takes([&] { header = DecodeSaveHeader(bytes.first<kSaveHeaderBytes>(), kFile); })) {
    Require(HasSaveMagic(bytes));
    Require(!BodyFormatName(header.format).empty());
    Require(header.extension.has_value() == (header.version == 3));
    const auto encoded = EncodeSaveHeader(header);
    Require(EncodeSaveHeader(DecodeSaveHeader(encoded, kFile)) == encoded);
  }
  HashBeforeStream(bytes);
}

void TakeDescription(std::span<const std::byte> bytes) {
  std::string text;
  if (!Takes([&] { text = DecodeDescription(bytes, kFile); })) return;
  Require(text.size() < bytes.size() && text.find('\0') == std::string::npos);
}

// The same again, with other texts: header and length stay, and what was put in is found.
void ChangeTexts(std::span<const std::byte> before_stream, const SaveHeader& header) {
  const std::string text(DescriptionRoom(before_stream, header), 'x');
  const std::vector<std::byte> changed = WithDescription(before_stream, header, text);
  Require(changed.size() == before_stream.size());
  Require(DecodeDescription(std::span(changed).subspan(kSaveHeaderBytes), kFile) == text);
  const SaveHeader again = DecodeSaveHeader(std::span(changed).first<kSaveHeaderBytes>(), kFile);
  Require(again.version == header.version && again.data_length == header.data_length);
  const auto cookie = FindCookie(before_stream, header);
  const auto kept = FindCookie(changed, again);
  Require(std::ranges::equal(cookie, kept));
}

// As a reader has it: as long as the header says.
void TakeBeforeStream(std::span<const std::byte> bytes) {
  if (bytes.size() <= kSaveHeaderBytes) return;
  SaveHeader header;
  if (!Takes([&] { header = DecodeSaveHeader(bytes.first<kSaveHeaderBytes>(), kFile); })) return;
  const std::span<const std::byte> data = bytes.subspan(kSaveHeaderBytes);
  if (header.data_length > data.size()) return;
  const auto before_stream = bytes.first(kSaveHeaderBytes + header.data_length);
  if (!Takes([&] { DecodeDescription(before_stream.subspan(kSaveHeaderBytes), kFile); })) return;
  ChangeTexts(before_stream, header);
}

void TakeStreamEnd(std::span<const std::byte> bytes) {
  const std::optional<std::size_t> end = FindStreamEnd(bytes);
  Require(!end || *end <= bytes.size());
}

}  // namespace
}  // namespace vmsave

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const vmsave::FuzzInput input(data, size);
  switch (input.choice % 4) {
    case 0:
      vmsave::TakeHeader(input.bytes);
      break;
    case 1:
      vmsave::TakeDescription(input.bytes);
      break;
    case 2:
      vmsave::TakeBeforeStream(input.bytes);
      break;
    default:
      vmsave::TakeStreamEnd(input.bytes);
  }
  return 0;
}
