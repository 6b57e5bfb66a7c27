#include "qemu/restore_guard.h"

#include <filesystem>

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

void RestoreGuard::NoteServing(const QmpClient& qmp, const ServingRecord& serving) {
  if (!record_.serving) process_.Hold(kLoadedQmpRole, qmp.socket());
  record_.qmp_socket = std::filesystem::absolute(qmp.socket_path()).string();
  record_.serving = serving;
  record_.unserved = false;
  Record();
}

void RestoreGuard::NoteKept(const KeptServing& kept) {
  process_.Hold(kHandOverRole, kept.hand_over);
  process_.Hold(kLoadedQmpRole, kept.qmp);
  NoteSpares(kept.spares);
  record_.directories = kept.record.directories;
  record_.qmp_socket = kept.record.qmp_socket;
  record_.serving = kept.record.serving;
  record_.unserved = true;
  Record();
}

void RestoreGuard::NoteTaken() {
  process_.LetGo(kHandOverRole);
}

void RestoreGuard::NoteSpares(std::span<const SpareChannel> spares) {
  for (const SpareChannel& spare : spares) {
    process_.Hold(spare.name, spare.socket);
    spares_.insert(spare.name);
  }
}

void RestoreGuard::NoteSpareUsed(const std::string& name) {
  process_.LetGo(name);
  spares_.erase(name);
}

void RestoreGuard::NoteInBackground() {
  process_.Quieten();
}

void RestoreGuard::NoteStarted() {
  if (record_.serving) record_.serving->run.reset();
  Record();
}

void RestoreGuard::NoteUnserved(bool operator_is_told) {
  record_.unserved = true;
  record_.operator_is_told = operator_is_told;
  Record();
  process_.Leave();
}

void RestoreGuard::NoteReleased() {
  record_.serving.reset();
  record_.released = true;
  Record();
  process_.LetGo(kLoadedQmpRole);
  for (const std::string& name : spares_) process_.LetGo(name);
  spares_.clear();
}

}  // namespace vmsave
