#include "qemu/restore_record.h"

#include <cstdint>
#include <nlohmann/json.hpp>

namespace vmsave {
namespace {

using Json = nlohmann::json;

Json Optional(const std::optional<bool>& value) {
  return value ? Json(*value) : Json();
}

std::optional<bool> TakeOptional(const Json& json) {
  return json.is_null() ? std::nullopt : std::optional(json.get<bool>());
}

Json Encode(const ServingRecord& serving) {
  return {{"image", serving.image},
          {"run", Optional(serving.run)},
          {"channels", serving.channels},
          {"uring", serving.uring},
          {"bypass_cache", serving.bypass_cache},
          {"check_pages", serving.check_pages},
          {"fill", serving.fill},
          {"fill_rate", serving.fill_rate},
          {"image_identity", serving.image_identity},
          {"host_pages", serving.host_pages},
          {"out_of_band", serving.out_of_band}};
}

ServingRecord DecodeServing(const Json& json) {
  ServingRecord serving;
  json.at("image").get_to(serving.image);
  serving.run = TakeOptional(json.at("run"));
  json.at("channels").get_to(serving.channels);
  json.at("uring").get_to(serving.uring);
  json.at("bypass_cache").get_to(serving.bypass_cache);
  json.at("check_pages").get_to(serving.check_pages);
  json.at("fill").get_to(serving.fill);
  json.at("fill_rate").get_to(serving.fill_rate);
  json.at("image_identity").get_to(serving.image_identity);
  json.at("host_pages").get_to(serving.host_pages);
  json.at("out_of_band").get_to(serving.out_of_band);
  return serving;
}

}  // namespace

std::string EncodeRestoreRecord(const RestoreRecord& record) {
  const std::vector<std::uint8_t> bytes = Json::to_cbor({{"directories", record.directories},
                                                         {"qmp_socket", record.qmp_socket},
                                                         {"argument", record.argument},
                                                         {"run", Optional(record.run)},
                                                         {"serving", record.serving ? Encode(*record.serving) : Json()},
                                                         {"unserved", record.unserved},
                                                         {"operator_is_told", record.operator_is_told},
                                                         {"released", record.released}});
  return {bytes.begin(), bytes.end()};
}

RestoreRecord DecodeRestoreRecord(const std::string& text) {
  const Json json = Json::from_cbor(text);
  RestoreRecord record;
  json.at("directories").get_to(record.directories);
  json.at("qmp_socket").get_to(record.qmp_socket);
  json.at("argument").get_to(record.argument);
  record.run = TakeOptional(json.at("run"));
  if (!json.at("serving").is_null()) record.serving = DecodeServing(json.at("serving"));
  json.at("unserved").get_to(record.unserved);
  json.at("operator_is_told").get_to(record.operator_is_told);
  json.at("released").get_to(record.released);
  return record;
}

}  // namespace vmsave
