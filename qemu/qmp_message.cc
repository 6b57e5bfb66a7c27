#include "qemu/qmp_message.h"

#include <algorithm>

#include "format/error.h"

namespace vmsave {
namespace {

using Json = nlohmann::json;

constexpr int kMaxNesting = 256;
constexpr std::size_t kMaxPrintedBytes = 1000;

// Limits recursion in whoever walks the value later; the parser itself has no limit.
bool NestsTooDeep(std::string_view line) {
  int depth = 0;
  bool in_string = false;
  for (std::size_t i = 0; i < line.size(); ++i) {
    const char c = line[i];
    if (in_string) {
      if (c == '\\') ++i;
      if (c == '"') in_string = false;
    } else if (c == '"') {
      in_string = true;
    } else if (c == '{' || c == '[') {
      if (++depth > kMaxNesting) return true;
    } else if (c == '}' || c == ']') {
      --depth;
    }
  }
  return false;
}

std::optional<int> VersionMember(const Json& object, const char* name) {
  const auto member = object.find(name);
  if (member == object.end() || !member->is_number_unsigned()) return std::nullopt;
  const auto value = member->get<std::uint64_t>();
  if (value > 100000) return std::nullopt;
  return static_cast<int>(value);
}

}  // namespace

Json ParseQmp(std::string_view line) {
  if (NestsTooDeep(line)) return Json(Json::value_t::discarded);
  return Json::parse(line, nullptr, /*allow_exceptions=*/false);
}

std::string StringMember(const Json& object, const char* name) {
  if (!object.is_object()) return "";
  const auto member = object.find(name);
  return member != object.end() && member->is_string() ? member->get<std::string>() : "";
}

std::optional<QemuVersion> GreetingVersion(const Json& greeting) {
  const Json* value = &greeting;
  for (const char* name : {"QMP", "version", "qemu"}) {
    if (!value->is_object()) return std::nullopt;
    const auto member = value->find(name);
    if (member == value->end()) return std::nullopt;
    value = &*member;
  }
  if (!value->is_object()) return std::nullopt;
  const std::optional<int> major = VersionMember(*value, "major");
  const std::optional<int> minor = VersionMember(*value, "minor");
  const std::optional<int> micro = VersionMember(*value, "micro");
  if (!major || !minor || !micro) return std::nullopt;
  return QemuVersion{*major, *minor, *micro};
}

std::string QmpRequest(const std::string& command, const Json& arguments, std::uint64_t id,
                       const std::string& what_failed) {
  Json request{{"execute", command}, {"id", id}};
  if (!arguments.empty()) request["arguments"] = arguments;
  try {
    return request.dump() + "\n";
  } catch (const Json::exception&) {  // QMP is UTF-8; a file name need not be
    throw Error(ErrorKind::kFailed, what_failed, "a name in it is not UTF-8, which QMP needs");
  }
}

std::string Printable(std::string_view text) {
  std::string printable(text.substr(0, kMaxPrintedBytes));
  std::replace_if(
      printable.begin(), printable.end(),
      [](char c) { return static_cast<unsigned char>(c) < 0x20 || static_cast<unsigned char>(c) == 0x7f; }, ' ');
  return printable;
}

}  // namespace vmsave
