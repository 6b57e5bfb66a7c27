#include "qemu/guest_facts.h"

#include <fmt/format.h>

#include <array>
#include <pugixml.hpp>
#include <sstream>

#include "format/save_header.h"

namespace vmsave {
namespace {

constexpr std::string_view kMachineSuffix = "-machine";
constexpr std::string_view kNoUuid = "00000000-0000-0000-0000-000000000000";

constexpr ByteCount kMostBesidesMemory{std::uint64_t{64} << 30};  // graphics cards have up to some GiB each

using Json = QmpClient::Json;

// `read` what QEMU has answered to `command`.
template <class Read>
auto Understand(const QmpClient& qmp, const Json& answer, std::string_view command, const Read& read) {
  try {
    return read(answer);
  } catch (const Json::exception&) {
    throw Error(ErrorKind::kFailed, fmt::format("cannot ask the guest at {} what it is", qmp.socket_path()),
                fmt::format("QEMU's answer to {} is not understood", command));
  }
}

template <class Value>
Value QueryMember(QmpClient& qmp, const std::string& command, const char* member) {
  return Understand(qmp, qmp.Execute(command), command,
                    [member](const Json& answer) { return answer.at(member).get_ref<const Value&>(); });
}

std::string QueryName(QmpClient& qmp) {
  return Understand(qmp, qmp.Execute("query-name"), "query-name",
                    [](const Json& answer) { return Excerpt(answer.value("name", std::string("guest"))); });
}

std::string QueryMachine(QmpClient& qmp) {
  std::string name = Understand(qmp, qmp.Execute("qom-get", {{"path", "/machine"}, {"property", "type"}}), "qom-get",
                                [](const Json& answer) { return answer.get_ref<const std::string&>(); });
  if (name.ends_with(kMachineSuffix)) name.resize(name.size() - kMachineSuffix.size());
  return name;
}

// libvirt's units: powers of 1024, and "KB" and its like powers of 1000; KiB where none is named.
std::uint64_t UnitBytes(std::string_view unit) {
  struct Unit {
    std::string_view name;
    std::uint64_t bytes;
  };
  constexpr std::array kUnits{Unit{"b", 1},          Unit{"bytes", 1},       Unit{"KB", 1000},
                              Unit{"MB", 1000000},   Unit{"GB", 1000000000}, Unit{"M", 1 << 20},
                              Unit{"MiB", 1 << 20},  Unit{"G", 1 << 30},     Unit{"GiB", 1 << 30},
                              Unit{"T", 1ULL << 40}, Unit{"TiB", 1ULL << 40}};
  for (const Unit& known : kUnits) {
    if (known.name == unit) return known.bytes;
  }
  return 1024;
}

ByteCount MemoryElement(const pugi::xml_node& element) {
  return ByteCount{CheckedMultiply(element.text().as_ullong(), UnitBytes(element.attribute("unit").as_string("KiB")))};
}

}  // namespace

std::string QueryStatus(QmpClient& qmp) {
  return QueryMember<std::string>(qmp, "query-status", "status");
}

GuestFacts QueryGuest(QmpClient& qmp) {
  GuestFacts guest;
  guest.name = QueryName(qmp);
  guest.uuid = QueryMember<std::string>(qmp, "query-uuid", "UUID");
  if (guest.uuid == kNoUuid) guest.uuid.clear();
  guest.machine = QueryMachine(qmp);
  guest.memory = ByteCount{QueryMember<std::uint64_t>(qmp, "query-memory-size-summary", "base-memory")};
  guest.vcpus = qmp.Execute("query-cpus-fast").size();
  guest.kvm = QueryMember<bool>(qmp, "query-kvm", "enabled");
  guest.status = QueryStatus(qmp);
  return guest;
}

ByteCount QueryMostRam(QmpClient& qmp, const GuestFacts& guest) {
  return Understand(qmp, qmp.Execute("query-memdev"), "query-memdev", [&guest](const Json& backends) {
    ByteCount most = guest.memory + kMostBesidesMemory;
    for (const Json& backend : backends) most += ByteCount{backend.at("size").get_ref<const std::uint64_t&>()};
    return most;
  });
}

std::string MakeDescription(const GuestFacts& guest) {
  pugi::xml_document document;
  pugi::xml_node domain = document.append_child("domain");
  domain.append_attribute("type") = guest.kvm ? "kvm" : "qemu";
  domain.append_child("name").text() = guest.name.c_str();
  if (!guest.uuid.empty()) domain.append_child("uuid").text() = guest.uuid.c_str();
  pugi::xml_node memory = domain.append_child("memory");
  memory.append_attribute("unit") = "b";
  memory.text() = guest.memory.value();
  domain.append_child("vcpu").text() = guest.vcpus;
  pugi::xml_node type = domain.append_child("os").append_child("type");
  type.append_attribute("machine") = guest.machine.c_str();
  type.text() = "hvm";
  std::ostringstream text;
  document.save(text, "  ", pugi::format_default | pugi::format_no_declaration);
  return text.str();
}

DescriptionFacts ReadDescription(const std::string& xml) {
  DescriptionFacts facts;
  pugi::xml_document document;
  if (!document.load_string(xml.c_str())) return facts;
  const pugi::xml_node domain = document.child("domain");
  facts.name = domain.child("name").text().as_string();
  facts.names_devices = static_cast<bool>(domain.child("devices"));
  const pugi::xml_node memory = domain.child("memory");
  if (!memory) return facts;
  ByteCount total = MemoryElement(memory);
  // What is plugged in as devices is not in -m.
  for (const pugi::xml_node& device : domain.child("devices").children("memory")) {
    const ByteCount plugged = MemoryElement(device.child("target").child("size"));
    if (plugged > total) return facts;
    total = total - plugged;
  }
  facts.memory = total;
  return facts;
}

void CheckDescription(const std::string& xml, const std::string& source) {
  if (xml.size() > kMaxDescriptionBytes / 2) {
    throw Error(ErrorKind::kUsage, fmt::format("cannot use the description in {}", source),
                fmt::format("it is longer than {} MiB", kMaxDescriptionBytes / 2 >> 20));
  }
  pugi::xml_document document;
  const pugi::xml_parse_result result = document.load_buffer(xml.data(), xml.size());
  if (xml.find('\0') != std::string::npos || !result) {
    throw Error(ErrorKind::kUsage, fmt::format("cannot use the description in {}", source),
                fmt::format("it is no well-formed XML: {} at byte {}", result.description(), result.offset));
  }
}

}  // namespace vmsave
