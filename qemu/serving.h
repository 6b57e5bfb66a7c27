// Looks after a guest that runs while its memory is served, until all of it is there.
#pragma once

#include <exception>
#include <functional>
#include <optional>
#include <string>
#include <thread>

#include "format/postcopy.h"
#include "io/progress.h"
#include "qemu/qmp_client.h"
#include "qemu/socket_sink.h"
#include "qemu/socket_source.h"
#include "reader/page_server.h"

namespace vmsave {

struct ServingEvents {
  // The operator asks to end (and once more for every time that he asks again): whether the serving goes on.
  std::function<bool()> on_interrupt;
  std::function<void()> on_look = [] {};  // now and then
  // What the guest needed in its first minute, in order. Once: when that is over, or all of its memory is there. What
  // it throws is of no concern.
  std::function<void(const std::vector<WorkChunk>&)> on_needed_first{};
};

// The guest is not served any more, and stands still or will. Its text says how to go on.
class UnservedError : public Error {
 public:
  using Error::Error;
};

// What to type to go on with it.
std::string RecoverCommand(std::string_view qmp_socket, std::string_view image, std::string_view options = "");

struct ServingOutcome {
  ServingFigures figures;
  bool guest_ended = false;  // before it had all of its memory
};

ByteCount PresentBytes(const Image& image);

// One thread's. Keeps references.
class Serving {
 public:
  // Begins at once, on threads of its own. `socket`: the migration's. `decoder`: of its return path.
  Serving(QmpClient& qmp, const Image& image, const std::vector<PostcopyBlock>& blocks, const ServeOptions& options,
          ServeStart start, const FileDescriptor& socket, ReturnPathDecoder& decoder);
  Serving(const Serving&) = delete;
  Serving& operator=(const Serving&) = delete;
  // Ends the serving wherever it is. A guest that has not all of its memory stands still as soon as it needs more.
  ~Serving();

  // QEMU has its devices: as PageServer::LetEnd.
  void LetEnd() { server_.LetEnd(); }

  // Whether the guest is not served any more although it needs it.
  bool HasFailed() const { return HasEndedEarly() || server_.obstacle(); }

  // For who waits for something else meanwhile: throws why where HasFailed, and as WaitForEnd for the operator.
  void CheckGoesOn(const Interrupt& interrupt, const ServingEvents& events) const;

  // The same for who can do without the pages that cannot be sent.
  void CheckHasNotEnded(const Interrupt& interrupt, const ServingEvents& events) const;

  // Returns once QEMU has all memory, or has ended. Throws UnservedError once the guest cannot be served any more: it
  // has been paused then, as far as it could be, and lives. Throws Error{kInterrupted} where `on_interrupt` says so;
  // the guest is left as it is. `is_yet_to_run`: it is to, and was not let.
  ServingOutcome WaitForEnd(Progress& progress, const Interrupt& interrupt, const ServingEvents& events,
                            bool is_yet_to_run);

 private:
  void Run();
  void Stop();
  bool HasEndedEarly() const { return ended_ && !server_.done(); }
  bool QemuHasEnded();
  void ShowProgress(Progress& progress) const;
  void TellNeededFirst(const ServingEvents& events);
  void WaitForNews(const Interrupt& interrupt) const;
  static void HeedOperator(const Interrupt& interrupt, const ServingEvents& events);
  void PassOverEvents();
  [[noreturn]] void GiveUp(ErrorKind kind, std::string_view why, bool is_yet_to_run);
  enum class Found { kRunning, kPaused, kUnknown };
  Found PauseGuest() noexcept;

  QmpClient& qmp_;
  const Image& image_;
  FileDescriptor stop_request_;  // an eventfd
  FileDescriptor ended_event_;
  Interrupt stop_;
  SocketSink sink_;
  SocketReader reader_;
  SocketSource source_;
  PageServer server_;
  ByteCount present_;
  bool needed_first_told_ = false;
  std::atomic<bool> ended_ = false;
  std::exception_ptr failure_;  // once it has ended
  std::jthread thread_;
};

}  // namespace vmsave
