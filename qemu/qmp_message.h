// The text of QMP's messages. Source: QEMU's docs/interop/qmp-spec. What comes from the other end may be anything.
#pragma once

#include <chrono>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

namespace vmsave {

struct QemuVersion {
  int major = 0;
  int minor = 0;
  int micro = 0;
};

// Discarded (Json::is_discarded) where the line is not JSON, or nests so deep that walking it would be dangerous.
nlohmann::json ParseQmp(std::string_view line);

// Empty where the value is no object, or has no such member, or one that is not a text.
std::string StringMember(const nlohmann::json& object, const char* name);

// The version in {"QMP": {"version": {"qemu": {"major": 7, "minor": 2, "micro": 22}, ...}, ...}}; nothing where the
// message is not such a greeting.
std::optional<QemuVersion> GreetingVersion(const nlohmann::json& greeting);

// Whether the greeting offers to execute commands out of band.
bool OffersOutOfBand(const nlohmann::json& greeting);

// When QEMU sent an event, since the epoch, by the clock of its host; nothing where its "timestamp" is not as it should
// be (QEMU writes -1 where it could not read its clock).
std::optional<std::chrono::microseconds> EventTime(const nlohmann::json& event);

enum class QmpBand { kIn, kOut };

// A command with its line end. Throws Error{kFailed} where a text in it is not UTF-8.
std::string QmpRequest(const std::string& command, const nlohmann::json& arguments, std::uint64_t id,
                       const std::string& what_failed, QmpBand band = QmpBand::kIn);

// The beginning of a text of the other end, which may be of any length, for a message.
std::string Excerpt(std::string_view text);

}  // namespace vmsave
