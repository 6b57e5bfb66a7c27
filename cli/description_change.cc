#include "cli/description_change.h"

#include <fmt/format.h>

#include <cctype>
#include <optional>
#include <pugixml.hpp>
#include <string_view>

#include "format/save_header.h"
#include "qemu/guest_facts.h"

namespace vmsave {
namespace {

struct Identity {
  std::string name;
  std::string uuid;  // its digits
};

[[noreturn]] void Refuse(const std::string& source, std::string_view why) {
  throw Error(ErrorKind::kUsage, fmt::format("cannot use the description in {}", source), why);
}

// libvirt takes a UUID with and without dashes and spaces, in either case.
std::string DigitsOf(std::string_view uuid) {
  std::string digits;
  for (const char c : uuid) {
    const int code = static_cast<unsigned char>(c);
    if (std::isxdigit(code) != 0) digits += static_cast<char>(std::tolower(code));
  }
  return digits;
}

// Nothing where the text is not a domain.
std::optional<Identity> ReadIdentity(const std::string& xml) {
  pugi::xml_document document;
  if (!document.load_buffer(xml.data(), xml.size())) return std::nullopt;
  const pugi::xml_node root = document.document_element();
  if (std::string_view(root.name()) != "domain") return std::nullopt;
  return Identity{root.child("name").text().as_string(), DigitsOf(root.child("uuid").text().as_string())};
}

// So that a text without end does not fill the screen.
std::string Shortened(const std::string& text) {
  constexpr std::size_t kMost = 100;
  return text.size() <= kMost ? text : text.substr(0, kMost) + "...";
}

void RefuseOther(std::string_view what, const std::string& before, const std::string& after,
                 const std::string& source) {
  if (before.empty() || before == after) return;
  Refuse(source, fmt::format("its {} is \"{}\", but that of the saved guest is \"{}\"", what, Shortened(after),
                             Shortened(before)));
}

}  // namespace

void CheckDescriptionChange(const std::string& before, const std::string& after, const std::string& source) {
  if (after.find('\0') != std::string::npos) Refuse(source, "it has a NUL");
  CheckDescription(after, source);
  const std::optional<Identity> now = ReadIdentity(after);
  if (!now) Refuse(source, "its root is not <domain>");
  const std::optional<Identity> was = ReadIdentity(before);
  if (!was) return;
  RefuseOther("name", was->name, now->name, source);
  RefuseOther("UUID", was->uuid, now->uuid, source);
}

}  // namespace vmsave
