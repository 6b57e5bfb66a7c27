#include "qemu/restore_guard.h"

#include "qemu/restore_undo.h"

namespace vmsave {

RestoreGuard::RestoreGuard() : process_("restore-guard", UndoRestore) {}

void RestoreGuard::Record() {
  process_.Record(EncodeRestoreRecord(record_));
}

PrivateDirectory::Announce RestoreGuard::AnnounceDirectory() {
  return [this](const std::string& path) {
    record_.directories.push_back(path);
    Record();
  };
}

void RestoreGuard::NoteDirectories(const std::vector<std::string>& paths) {
  record_.directories = paths;
  Record();
}

void RestoreGuard::NoteArgument(const std::string& argument) {
  record_.argument = argument;
  Record();
}

void RestoreGuard::NoteProcess(const HeldProcess& process) {
  if (process.descriptor().valid()) process_.Hold(kProcessRole, process.descriptor());
}

void RestoreGuard::NoteLoaded(const QmpClient& qmp, bool run) {
  process_.Hold(kLoadedQmpRole, qmp.socket());
  record_.qmp_socket = qmp.socket_path();
  record_.run = run;
  Record();
}

void RestoreGuard::NoteNotRunning() {
  process_.LetGo(kLoadedQmpRole);
  record_.run.reset();
  Record();
}

void RestoreGuard::NoteServing(const QmpClient& qmp, const ServingRecord& serving, const FileDescriptor& spare) {
  process_.LetGo(kLoadedQmpRole);
  process_.Hold(kLoadedQmpRole, qmp.socket());
  process_.Hold(kSpareRole, spare);
  record_.qmp_socket = qmp.socket_path();
  record_.serving = serving;
  Record();
}

void RestoreGuard::NoteSpareUsed() {
  process_.LetGo(kSpareRole);
}

void RestoreGuard::NoteStarted() {
  if (record_.serving) record_.serving->run.reset();
  Record();
}

void RestoreGuard::NoteUnserved() {
  record_.unserved = true;
  Record();
  process_.Leave();
}

void RestoreGuard::NoteReleased() {
  process_.LetGo(kLoadedQmpRole);
  process_.LetGo(kSpareRole);
  record_.serving.reset();
  record_.released = true;
  Record();
}

}  // namespace vmsave
