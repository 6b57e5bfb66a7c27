#include "qemu/save_guard.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <cerrno>
#include <filesystem>

#include "qemu/save_undo.h"

namespace vmsave {

SaveGuard::SaveGuard() : process_("save-guard", UndoSave) {}

template <class Change>
void SaveGuard::Note(const Change& change) {
  const std::lock_guard lock(mutex_);
  change(record_);
  process_.Record(EncodeSaveRecord(record_));
}

void SaveGuard::NoteGuest(const QmpClient& qmp, const std::string& name, AfterSave after) {
  process_.Hold(kQmpRole, qmp.socket());
  Note([&](SaveRecord& record) {
    record.guest = name;
    record.qmp_socket = qmp.socket_path();
    record.after = after;
  });
}

NewFile::Announce SaveGuard::AnnounceFile(const std::string& path) {
  return [this, path](const FileDescriptor& directory, const std::string& temporary) {
    process_.LetGo(kDirectoryRole);
    process_.Hold(kDirectoryRole, directory);
    Note([&](SaveRecord& record) {
      record.path = path;
      record.temporary = temporary;
    });
  };
}

void SaveGuard::NotePublishing(const NewFile& file) {
  struct stat status {};
  if (::fstat(file.buffered().number(), &status) != 0) {
    throw Error::FromErrno(fmt::format("cannot look at {}", file.buffered().name()), errno);
  }
  const std::string name = std::filesystem::path(file.path()).filename().string();
  Note([&](SaveRecord& record) { record.publishing = Publishing{name, status.st_dev, status.st_ino}; });
}

void SaveGuard::NotePublishingFailed() {
  Note([](SaveRecord& record) { record.publishing.reset(); });
}

void SaveGuard::NoteEnd() {
  const std::lock_guard lock(mutex_);
  record_ = {};
  process_.Record("");
  for (const std::string_view role : {kQmpRole, kDirectoryRole, kSocketRole}) process_.LetGo(role);
}

void SaveGuard::LetSocketsGo() {
  process_.LetGo(kSocketRole);
}

void SaveGuard::NotePause(const PauseState& state) {
  Note([&](SaveRecord& record) { record.pause = state; });
}

void SaveGuard::NoteSettings(const OldMigrationSettings& old) {
  Note([&](SaveRecord& record) { record.settings = old; });
}

void SaveGuard::NoteMigration(const std::optional<MigrationKind>& kind) {
  Note([&](SaveRecord& record) { record.migration = kind; });
  if (!kind) LetSocketsGo();
}

void SaveGuard::NoteDescriptors(const std::string& mark) {
  Note([&](SaveRecord& record) { record.descriptors = mark; });
}

PrivateDirectory::Announce SaveGuard::AnnounceDirectory() {
  return [this](const std::string& path) { Note([&](SaveRecord& record) { record.directories.push_back(path); }); };
}

void SaveGuard::AcceptOn(const FileDescriptor& listener, unsigned count) {
  process_.AcceptOn(kSocketRole, listener, count);
}

void SaveGuard::HoldSocket(const FileDescriptor& socket) {
  process_.Hold(kSocketRole, socket);
}

}  // namespace vmsave
