#include "qemu/save_record.h"

#include <nlohmann/json.hpp>

namespace nlohmann {

template <class Value>
struct adl_serializer<std::optional<Value>> {
  static void to_json(json& out, const std::optional<Value>& value) { out = value ? json(*value) : json(); }
  static void from_json(const json& in, std::optional<Value>& value) {
    value = in.is_null() ? std::nullopt : std::optional(in.get<Value>());
  }
};

}  // namespace nlohmann

namespace vmsave {

NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(PauseState, was_running, stopped, resumed)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(MigrationKind, is_snapshot, must_run_to_its_end,
                                   crashes_when_cancelled_in_full_flight)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(OldMigrationSettings, parameters, capabilities)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Publishing, name, device, inode)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(SaveRecord, guest, qmp_socket, pause, migration, settings, descriptors, directories,
                                   path, temporary, publishing, after)

std::string EncodeSaveRecord(const SaveRecord& record) {
  const std::vector<std::uint8_t> bytes = nlohmann::json::to_cbor(nlohmann::json(record));
  return {bytes.begin(), bytes.end()};
}

SaveRecord DecodeSaveRecord(const std::string& text) {
  return nlohmann::json::from_cbor(text).get<SaveRecord>();
}

}  // namespace vmsave
