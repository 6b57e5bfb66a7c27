#include "qemu/save_undo.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "io/private_directory.h"
#include "qemu/descriptor_set.h"
#include "qemu/guest_facts.h"
#include "qemu/save_record.h"
#include "qemu/socket_source.h"

namespace vmsave {
namespace {

class SaveUndo {
 public:
  explicit SaveUndo(GuardProcess::Legacy legacy)
      : record_(DecodeSaveRecord(legacy.record)), held_(std::move(legacy.held)) {}

  void Run() {
    const bool has_its_name = HasItsName();
    const bool finish = has_its_name && SyncDirectory();
    const std::string outcome = finish ? OutcomeOf(&SaveUndo::FinishGuest) : OutcomeOf(&SaveUndo::ReleaseGuest);
    RemoveTemporary();
    for (const std::string& path : record_.directories) RemovePrivateDirectory(path);
    std::string image = "no image was written";
    if (has_its_name) image = fmt::format("{} is complete", record_.path);
    if (has_its_name && !finish) image += ", but a power failure could still undo its name";
    held_.clear();  // QEMU can be talked to again, however long the telling takes
    GuardProcess::Tell("vmsave", fmt::format("killed in the middle of a save; {}{}", image, outcome));
  }

 private:
  const FileDescriptor* Find(std::string_view role) const {
    const auto held = std::ranges::find(held_, role, &GuardProcess::Held::role);
    return held == held_.end() ? nullptr : &held->descriptor;
  }

  bool HasItsName() const {
    const FileDescriptor* directory = Find(kDirectoryRole);
    struct stat status {};
    return directory != nullptr && record_.publishing &&
           ::fstatat(directory->number(), record_.publishing->name.c_str(), &status, AT_SYMLINK_NOFOLLOW) == 0 &&
           status.st_dev == record_.publishing->device && status.st_ino == record_.publishing->inode;
  }

  bool SyncDirectory() const { return ::fsync(Find(kDirectoryRole)->number()) == 0 || errno == EINVAL; }

  // Gone already where it was renamed; the other of two names where it was linked.
  void RemoveTemporary() const {
    const FileDescriptor* directory = Find(kDirectoryRole);
    if (directory != nullptr && !record_.temporary.empty()) {
      ::unlinkat(directory->number(), record_.temporary.c_str(), 0);
    }
  }

  // ", and GUEST runs on"; nothing where no guest is known yet.
  std::string OutcomeOf(std::string (SaveUndo::*step)(QmpClient&) const) const {
    const FileDescriptor* connection = Find(kQmpRole);
    if (connection == nullptr) return "";
    const std::vector<const FileDescriptor*> sockets = Sockets();
    const SocketDrain drain(sockets);
    try {
      const Interrupt never;
      QmpClient qmp(*connection, record_.qmp_socket, never);
      const QmpClient::Patience patience(qmp, kPatienceWithDisks);
      return ", and " + (this->*step)(qmp);
    } catch (const std::exception& error) {
      if (IsClosedByPeer(*connection)) return fmt::format("; the QEMU of {} has ended, too", record_.guest);
      return fmt::format(", and {} may stand still: {}; once QEMU answers again: QMP migrate_cancel, then cont",
                         record_.guest, error.what());
    }
  }

  // Each step is tried, whatever became of those before: the last one matters most.
  std::string ReleaseGuest(QmpClient& qmp) const {
    std::string failures;
    const auto attempt = [&failures](const auto& step) {
      try {
        step();
      } catch (const std::exception& error) {
        failures += fmt::format("; {}", error.what());
      }
    };
    attempt([&] {
      if (record_.migration) GoOnUntilMigrationMayEnd(qmp, *record_.migration);
    });
    attempt([&] {
      if (record_.migration) CancelMigration(qmp, *record_.migration);
    });
    if (!PutBack(qmp, record_.settings)) failures += "; its migration settings could not be put back";
    attempt([&] {
      if (!record_.descriptors.empty()) RemoveDescriptorSets(qmp, record_.descriptors);
    });
    const PauseState pause = record_.pause.value_or(PauseState());
    GuestPause(qmp, record_.guest, pause).Resume();
    if (pause.was_running) return fmt::format("{} runs on{}", record_.guest, failures);
    return fmt::format("{} {}{}", record_.guest,
                       NeedsToRunBeforeSave(qmp)
                           ? "stands still as before; QEMU will not save it again until it has run"
                           : "is as it was before",
                       failures);
  }

  std::string FinishGuest(QmpClient& qmp) const {
    PutBack(qmp, record_.settings);
    const PauseState pause = record_.pause.value_or(PauseState());
    GuestPause(qmp, record_.guest, pause).Settle(record_.after);
    if (record_.after == AfterSave::kQuit) return "QEMU ended, as was asked";
    const bool runs = record_.after == AfterSave::kResume && pause.was_running;
    return fmt::format("{} {}", record_.guest, runs ? "runs on" : "is paused");
  }

  std::vector<const FileDescriptor*> Sockets() const {
    std::vector<const FileDescriptor*> sockets;
    for (const GuardProcess::Held& held : held_) {
      if (held.role == kSocketRole) sockets.push_back(&held.descriptor);
    }
    return sockets;
  }

  SaveRecord record_;
  std::vector<GuardProcess::Held> held_;
};

}  // namespace

void UndoSave(GuardProcess::Legacy legacy) {
  SaveUndo(std::move(legacy)).Run();
}

}  // namespace vmsave
