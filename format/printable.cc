#include "format/printable.h"

#include <fmt/format.h>

#include <array>
#include <cstdint>
#include <optional>

namespace vmsave {
namespace {

struct Character {
  std::size_t length;
  std::uint32_t code;
};

std::uint32_t ByteOf(char c) {
  return static_cast<unsigned char>(c);
}

std::size_t LengthFromFirst(std::uint32_t byte) {
  if (byte < 0x80) return 1;
  if (byte < 0xe0) return 2;
  return byte < 0xf0 ? 3 : 4;
}

// The character of UTF-8 that the text begins with; nothing where it begins with none. REQUIRES: the text is not empty.
std::optional<Character> FirstCharacter(std::string_view text) {
  constexpr std::array<std::uint32_t, 5> kLeastOfLength{0, 0, 0x80, 0x800, 0x10000};
  const std::uint32_t first = ByteOf(text.front());
  const std::size_t length = LengthFromFirst(first);
  if (length == 1) return Character{1, first};
  if (first < 0xc0 || first >= 0xf8 || text.size() < length) return std::nullopt;
  std::uint32_t code = first & (0x7fU >> length);
  for (const char c : text.substr(1, length - 1)) {
    if ((ByteOf(c) & 0xc0U) != 0x80) return std::nullopt;
    code = code << 6U | (ByteOf(c) & 0x3fU);
  }
  const bool is_surrogate = code >= 0xd800 && code < 0xe000;
  if (code < kLeastOfLength[length] || code > 0x10ffff || is_surrogate) return std::nullopt;
  return Character{length, code};
}

// Those above 0x7f begin sequences in some terminals too, as escape does.
bool IsControl(std::uint32_t code) {
  return code < 0x20 || (code >= 0x7f && code < 0xa0);
}

void AppendEscaped(std::string& out, std::string_view bytes) {
  for (const char byte : bytes) {
    if (byte == '\n') {
      out += "\\n";
    } else if (byte == '\t') {
      out += "\\t";
    } else {
      out += fmt::format("\\x{:02x}", ByteOf(byte));
    }
  }
}

}  // namespace

std::string Printable(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const std::optional<Character> character = FirstCharacter(text);
    const std::string_view bytes = text.substr(0, character ? character->length : 1);
    if (character && !IsControl(character->code)) {
      out += bytes;
    } else {
      AppendEscaped(out, bytes);
    }
    text.remove_prefix(bytes.size());
  }
  return out;
}

}  // namespace vmsave
