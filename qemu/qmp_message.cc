#include "qemu/qmp_message.h"

#include <algorithm>

#include "format/error.h"

namespace vmsave {
namespace {

using Json = nlohmann::json;

constexpr int kMaxNesting = 256;
constexpr std::size_t kMaxExcerptBytes = 1000;
constexpr std::uint64_t kMaxVersionPart = 100'000;
constexpr std::uint64_t kMaxSeconds = std::uint64_t{1} << 40;  // some 35,000 years

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

// Null where the value is no object or has no such member.
const Json* Member(const Json& object, const char* name) {
  if (!object.is_object()) return nullptr;
  const auto member = object.find(name);
  return member != object.end() ? &*member : nullptr;
}

std::optional<std::uint64_t> NumberMember(const Json& object, const char* name, std::uint64_t max) {
  const Json* member = Member(object, name);
  if (member == nullptr || !member->is_number_unsigned() || member->get<std::uint64_t>() > max) return std::nullopt;
  return member->get<std::uint64_t>();
}

}  // namespace

Json ParseQmp(std::string_view line) {
  if (NestsTooDeep(line)) return Json(Json::value_t::discarded);
  return Json::parse(line, nullptr, /*allow_exceptions=*/false);
}

std::string StringMember(const Json& object, const char* name) {
  const Json* member = Member(object, name);
  return member != nullptr && member->is_string() ? member->get<std::string>() : "";
}

std::optional<QemuVersion> GreetingVersion(const Json& greeting) {
  const Json* value = &greeting;
  for (const char* name : {"QMP", "version", "qemu"}) {
    value = Member(*value, name);
    if (value == nullptr) return std::nullopt;
  }
  const auto part = [value](const char* name) { return NumberMember(*value, name, kMaxVersionPart); };
  const std::optional<std::uint64_t> major = part("major");
  const std::optional<std::uint64_t> minor = part("minor");
  const std::optional<std::uint64_t> micro = part("micro");
  if (!major || !minor || !micro) return std::nullopt;
  return QemuVersion{static_cast<int>(*major), static_cast<int>(*minor), static_cast<int>(*micro)};
}

bool OffersOutOfBand(const Json& greeting) {
  const Json* qmp = Member(greeting, "QMP");
  const Json* capabilities = qmp == nullptr ? nullptr : Member(*qmp, "capabilities");
  return capabilities != nullptr && capabilities->is_array() &&
         std::find(capabilities->begin(), capabilities->end(), "oob") != capabilities->end();
}

std::optional<std::chrono::microseconds> EventTime(const Json& event) {
  const Json* timestamp = Member(event, "timestamp");
  if (timestamp == nullptr) return std::nullopt;
  const std::optional<std::uint64_t> seconds = NumberMember(*timestamp, "seconds", kMaxSeconds);
  const std::optional<std::uint64_t> microseconds = NumberMember(*timestamp, "microseconds", 999'999);
  if (!seconds || !microseconds) return std::nullopt;
  return std::chrono::seconds(*seconds) + std::chrono::microseconds(*microseconds);
}

std::string QmpRequest(const std::string& command, const Json& arguments, std::uint64_t id,
                       const std::string& what_failed, QmpBand band) {
  Json request{{band == QmpBand::kIn ? "execute" : "exec-oob", command}, {"id", id}};
  if (!arguments.empty()) request["arguments"] = arguments;
  try {
    return request.dump() + "\n";
  } catch (const Json::exception&) {  // QMP is UTF-8; a file name need not be
    throw Error(ErrorKind::kFailed, what_failed, "a name in it is not UTF-8, which QMP needs");
  }
}

std::string Excerpt(std::string_view text) {
  return std::string(text.substr(0, kMaxExcerptBytes));
}

}  // namespace vmsave
