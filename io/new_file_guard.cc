#include "io/new_file_guard.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

namespace vmsave {
namespace {

constexpr std::string_view kDirectoryRole = "directory";

// The temporary has gone where the file has its own name, or was not made yet.
void RemoveTemporary(const std::string& program, const FileDescriptor& directory, const std::string& temporary) {
  if (::unlinkat(directory.number(), temporary.c_str(), 0) == 0) {
    GuardProcess::Tell(program, "killed in the middle; the file that it had begun was removed");
  } else if (errno != ENOENT) {
    const std::string why = std::generic_category().message(errno);
    GuardProcess::Tell(program, fmt::format("killed in the middle; {} is left, remove it: {}", temporary, why));
  }
}

}  // namespace

NewFileGuard::NewFileGuard(const std::string& program)
    : process_("file-guard", [program](const GuardProcess::Legacy& legacy) {
        for (const GuardProcess::Held& held : legacy.held) RemoveTemporary(program, held.descriptor, legacy.record);
      }) {}

NewFile::Announce NewFileGuard::AnnounceFile() {
  return [this](const FileDescriptor& directory, const std::string& temporary) {
    process_.LetGo(kDirectoryRole);
    process_.Hold(kDirectoryRole, directory);
    process_.Record(temporary);
  };
}

}  // namespace vmsave
