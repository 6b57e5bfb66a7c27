#include "qemu/restore_record.h"

#include <cstdint>
#include <nlohmann/json.hpp>

namespace vmsave {
namespace {

using Json = nlohmann::json;

}  // namespace

std::string EncodeRestoreRecord(const RestoreRecord& record) {
  const std::vector<std::uint8_t> bytes = Json::to_cbor({{"directories", record.directories},
                                                         {"qmp_socket", record.qmp_socket},
                                                         {"argument", record.argument},
                                                         {"run", record.run ? Json(*record.run) : Json()},
                                                         {"released", record.released}});
  return {bytes.begin(), bytes.end()};
}

RestoreRecord DecodeRestoreRecord(const std::string& text) {
  const Json json = Json::from_cbor(text);
  RestoreRecord record;
  json.at("directories").get_to(record.directories);
  json.at("qmp_socket").get_to(record.qmp_socket);
  json.at("argument").get_to(record.argument);
  if (!json.at("run").is_null()) record.run = json.at("run").get<bool>();
  json.at("released").get_to(record.released);
  return record;
}

}  // namespace vmsave
