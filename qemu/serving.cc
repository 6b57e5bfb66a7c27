#include "qemu/serving.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <utility>

#include "qemu/guest_facts.h"

namespace vmsave {
namespace {

constexpr int kLookMs = 100;
constexpr std::chrono::seconds kPatienceWithStop{2};
constexpr std::chrono::seconds kPatienceWithEnd{1};

FileDescriptor MakeEvent() {
  FileDescriptor event(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), "eventfd");
  if (!event.valid()) throw Error::FromErrno("cannot serve the guest its memory", errno);
  return event;
}

FileDescriptor Duplicate(const FileDescriptor& file) {
  FileDescriptor copy(::dup(file.number()), file.name());
  if (!copy.valid()) throw Error::FromErrno("cannot serve the guest its memory", errno);
  return copy;
}

void Signal(const FileDescriptor& event) {
  const std::uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(event.number(), &one, sizeof(one));
}

}  // namespace

ByteCount PresentBytes(const Image& image) {
  ByteCount present;
  for (const StreamBlock& block : image.contents().blocks) {
    present += PagesToBytes(PageIndex{block.present.CountSet()});
  }
  return present;
}

Serving::Serving(QmpClient& qmp, const Image& image, const std::vector<PostcopyBlock>& blocks,
                 const ServeOptions& options, ServeStart start, const FileDescriptor& socket,
                 ReturnPathDecoder& decoder)
    : qmp_(qmp),
      image_(image),
      stop_request_(MakeEvent()),
      ended_event_(MakeEvent()),
      stop_(Duplicate(stop_request_)),
      sink_(socket, stop_, [this] { server_.CheckGoesOn(); }),
      reader_(socket, stop_, [this] { server_.CheckGoesOn(); }),
      source_(reader_),
      server_(image, blocks, options, std::move(start), sink_, source_, decoder, stop_),
      present_(PresentBytes(image)) {
  thread_ = std::jthread([this] { Run(); });
}

Serving::~Serving() {
  Stop();
}

void Serving::Run() {
  try {
    server_.Run();
  } catch (...) {
    failure_ = std::current_exception();
  }
  ended_ = true;
  Signal(ended_event_);
}

void Serving::Stop() {
  Signal(stop_request_);
  if (thread_.joinable()) thread_.join();
}

void Serving::CheckGoesOn(const Interrupt& interrupt, const ServingEvents& events) const {
  CheckHasNotEnded(interrupt, events);
  if (const std::optional<Error> obstacle = server_.obstacle()) throw Error(*obstacle);
}

void Serving::CheckHasNotEnded(const Interrupt& interrupt, const ServingEvents& events) const {
  HeedOperator(interrupt, events);
  if (!HasEndedEarly()) return;
  if (failure_) std::rethrow_exception(failure_);
  throw Error(ErrorKind::kFailed, "cannot serve the guest its memory", "QEMU has ended");
}

void Serving::HeedOperator(const Interrupt& interrupt, const ServingEvents& events) {
  if (!interrupt.requested() || events.on_interrupt()) return;
  throw Error(ErrorKind::kInterrupted, "stopped", "interrupted by the operator");
}

ServingOutcome Serving::WaitForEnd(Progress& progress, const Interrupt& interrupt, const ServingEvents& events,
                                   bool is_yet_to_run) {
  progress.Begin("filling", present_);
  while (!ended_) {
    ShowProgress(progress);
    WaitForNews(interrupt);
    PassOverEvents();
    events.on_look();
    if (const std::optional<Error> obstacle = server_.obstacle())
      GiveUp(obstacle->kind(), obstacle->what(), is_yet_to_run);
    if (server_.HasNotedAll()) TellNeededFirst(events);
    HeedOperator(interrupt, events);
  }
  ShowProgress(progress);
  TellNeededFirst(events);
  ServingOutcome outcome{server_.figures(), !server_.done()};
  if (!outcome.guest_ended || QemuHasEnded()) return outcome;
  try {
    if (failure_) std::rethrow_exception(failure_);
  } catch (const Error& error) {
    GiveUp(error.kind(), error.what(), is_yet_to_run);
  }
  return outcome;
}

void Serving::TellNeededFirst(const ServingEvents& events) {
  if (std::exchange(needed_first_told_, true) || !events.on_needed_first) return;
  try {
    events.on_needed_first(server_.NeededFirst());
  } catch (const std::exception&) {
    return;  // no guest stands still for want of a hint
  }
}

// QEMU would keep them all for somebody who does not read them. That it has closed the connection is seen elsewhere.
void Serving::PassOverEvents() {
  try {
    const QmpClient::Uninterrupted uninterrupted(qmp_);
    qmp_.TakeEvents();
  } catch (const Error&) {
    return;
  }
}

void Serving::ShowProgress(Progress& progress) const {
  const ServingFigures figures = server_.figures();
  progress.Set(present_ - figures.left, present_);
  progress.SetDemand(figures.demanded, figures.latency.Quantile(0.99));
}

void Serving::WaitForNews(const Interrupt& interrupt) const {
  std::array<pollfd, 2> set{pollfd{ended_event_.number(), POLLIN, 0}, pollfd{interrupt.descriptor(), POLLIN, 0}};
  ::poll(set.data(), set.size(), kLookMs);
}

bool Serving::QemuHasEnded() {
  try {
    const QmpClient::Uninterrupted uninterrupted(qmp_);
    return qmp_.WaitClosed(kPatienceWithEnd);
  } catch (const std::exception&) {
    return qmp_.closed();
  }
}

// Served on meanwhile: what stops may have to wait for a page before it does.
void Serving::GiveUp(ErrorKind kind, std::string_view why, bool is_yet_to_run) {
  const Found found = PauseGuest();
  const bool is_to_run = found == Found::kRunning || (found == Found::kPaused && is_yet_to_run);
  Stop();
  throw UnservedError(kind, fmt::format("cannot go on serving the guest from {}", image_.path()), why,
                      fmt::format("it {}, and is not lost: {} reads from another copy of the image; or end its QEMU",
                                  found == Found::kUnknown ? "stands still where it needs such a page" : "is paused",
                                  RecoverCommand(qmp_.socket_path(), "COPY", is_to_run ? "--running " : "")));
}

// Unknown of one that waits for the very page. A QEMU that answers nothing is asked nothing more: it takes only so many
// questions, and the next who serves it needs some.
Serving::Found Serving::PauseGuest() noexcept {
  try {
    const QmpClient::Uninterrupted uninterrupted(qmp_);
    const QmpClient::Patience patience(qmp_, kPatienceWithStop);
    if (!qmp_.CatchUp(kPatienceWithStop)) return Found::kUnknown;
    const bool was_running = QueryStatus(qmp_) == "running";
    qmp_.Execute("stop");
    return was_running ? Found::kRunning : Found::kPaused;
  } catch (const std::exception&) {
    return Found::kUnknown;
  }
}

std::string RecoverCommand(std::string_view qmp_socket, std::string_view image, std::string_view options) {
  return fmt::format("vmrestore --recover {}--qmp {} {}", options, qmp_socket, image);
}

}  // namespace vmsave
