#include "format/elf_core.h"

#include <elf.h>

#include "format/bytes.h"

namespace vmsave {
namespace {

constexpr std::string_view kNoteName{"vmsave\0", 7};
constexpr std::uint32_t kNoteType = 1;

std::uint64_t PaddedToWord(std::uint64_t length) {
  return RoundUp(length, 4);
}

void AppendPadded(ByteWriter& out, std::string_view text) {
  out.Append(text);
  out.AppendZeros(PaddedToWord(text.size()) - text.size());
}

std::uint64_t NoteLength(std::string_view note) {
  return sizeof(Elf64_Nhdr) + PaddedToWord(kNoteName.size()) + PaddedToWord(note.size());
}

void AppendElfHeader(ByteWriter& out, std::size_t program_headers) {
  out.Append(std::string_view(ELFMAG, SELFMAG));
  for (const int field : {ELFCLASS64, ELFDATA2LSB, EV_CURRENT, ELFOSABI_NONE}) {
    out.AppendLittleEndian(static_cast<std::uint8_t>(field));
  }
  out.AppendZeros(EI_NIDENT - SELFMAG - 4);
  out.AppendLittleEndian<std::uint16_t>(ET_CORE);
  out.AppendLittleEndian<std::uint16_t>(EM_X86_64);
  out.AppendLittleEndian<std::uint32_t>(EV_CURRENT);
  out.AppendLittleEndian<std::uint64_t>(0);                   // entry point
  out.AppendLittleEndian<std::uint64_t>(sizeof(Elf64_Ehdr));  // program headers
  out.AppendLittleEndian<std::uint64_t>(0);                   // section headers
  out.AppendLittleEndian<std::uint32_t>(0);                   // flags
  out.AppendLittleEndian<std::uint16_t>(sizeof(Elf64_Ehdr));
  out.AppendLittleEndian<std::uint16_t>(sizeof(Elf64_Phdr));
  out.AppendLittleEndian(static_cast<std::uint16_t>(program_headers));
  for (int section_field = 0; section_field < 3; ++section_field) out.AppendLittleEndian<std::uint16_t>(0);
}

void AppendProgramHeader(ByteWriter& out, std::uint32_t type, FileOffset offset, GuestAddress address,
                         std::uint64_t length) {
  out.AppendLittleEndian(type);
  out.AppendLittleEndian<std::uint32_t>(type == PT_LOAD ? PF_R | PF_W | PF_X : 0);
  out.AppendLittleEndian(offset.value());
  out.AppendLittleEndian(address.value());  // virtual
  out.AppendLittleEndian(address.value());  // physical
  out.AppendLittleEndian(length);           // in the file
  out.AppendLittleEndian(length);           // in memory
  out.AppendLittleEndian<std::uint64_t>(0);
}

}  // namespace

std::vector<std::byte> EncodeElfCore(std::span<const CoreRange> ranges, std::string_view note) {
  ByteWriter out;
  const std::size_t headers = 1 + ranges.size();
  AppendElfHeader(out, headers);
  const FileOffset note_offset{sizeof(Elf64_Ehdr) + headers * sizeof(Elf64_Phdr)};
  AppendProgramHeader(out, PT_NOTE, note_offset, GuestAddress{0}, NoteLength(note));
  for (const CoreRange& range : ranges) {
    AppendProgramHeader(out, PT_LOAD, range.offset, range.address, range.length.value());
  }
  out.AppendLittleEndian(static_cast<std::uint32_t>(kNoteName.size()));
  out.AppendLittleEndian(static_cast<std::uint32_t>(note.size()));
  out.AppendLittleEndian(kNoteType);
  AppendPadded(out, kNoteName);
  AppendPadded(out, note);
  return out.Take();
}

}  // namespace vmsave
