#include "tests/e2e/guest.h"

#include <fmt/format.h>
#include <signal.h>

#include <charconv>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>

#include "qemu/guest_facts.h"

namespace vmsave {
namespace {

// Nobody interrupts a test's own questions.
const Interrupt& Never() {
  static const Interrupt never;
  return never;
}

// Empty for a process that has ended meanwhile.
std::string ReadCommandLine(const std::filesystem::path& process) {
  std::ifstream file(process / "cmdline", std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

std::optional<pid_t> ProcessNumber(const std::filesystem::path& path) {
  const std::string name = path.filename().string();
  pid_t pid = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), pid);
  if (error != std::errc() || end != name.data() + name.size()) return std::nullopt;
  return pid;
}

}  // namespace

std::optional<std::string> QemuPath(WhichQemu which) {
  const char* path = std::getenv(which == WhichQemu::kOld ? "VMSAVE_QEMU_OLD" : "VMSAVE_QEMU_NEW");
  if (path == nullptr || *path == '\0') return std::nullopt;
  return path;
}

Guest::Guest(const ScratchDirectory& directory, std::string id, const GuestShape& shape)
    : shape_(shape),
      log_path_(directory.Path(id + ".log")),
      ram_path_(directory.Path(id + ".ram")),
      qmp_path_(directory.Path(id + ".qmp")),
      pid_path_(directory.Path(id + ".pid")) {
  if (shape.ram == Ram::kShm) ram_path_ = fmt::format("/dev/shm/{}-{}.ram", directory.path().filename().string(), id);
}

Guest::~Guest() {
  Kill();
  std::error_code ignored;
  std::filesystem::remove(ram_path_, ignored);
}

std::string WhyNotHere(Ram ram, unsigned memory_kib) {
  constexpr unsigned kHugePageKib = 2048;
  unsigned free_pages = 0;
  std::ifstream("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages") >> free_pages;
  const unsigned wanted = memory_kib / kHugePageKib;
  if (ram != Ram::kHugePages || free_pages >= wanted) return "";
  return fmt::format("{} huge pages are free (sysctl vm.nr_hugepages={} makes them)", free_pages, wanted);
}

void Guest::PrintToCopyOf(const Guest& other) const {
  std::filesystem::copy_file(other.log_path_, log_path_);
}

std::vector<std::string> Guest::RamOptions() const {
  const auto backend = [](std::string_view type, std::string_view id, unsigned kib) {
    return fmt::format("memory-backend-{},id={},size={}K,share=on", type, id, kib);
  };
  const auto two_nodes = [&](const std::string& first) -> std::vector<std::string> {
    return {"-machine", shape_.machine,
            "-object",  first,
            "-object",  backend("memfd", "ram1", shape_.memory_kib / 2),
            "-numa",    "node,memdev=ram0",
            "-numa",    "node,memdev=ram1"};
  };
  const std::string machine = shape_.machine + ",memory-backend=pc.ram";
  const std::string in_file = ",mem-path=" + ram_path_;
  switch (shape_.ram) {
    case Ram::kFile:
    case Ram::kShm:
      return {"-machine", machine, "-object", backend("file", "pc.ram", shape_.memory_kib) + in_file};
    case Ram::kMemfd:
      return {"-machine", machine, "-object", backend("memfd", "pc.ram", shape_.memory_kib)};
    case Ram::kHugePages:
      return {"-machine", machine, "-object",
              backend("memfd", "pc.ram", shape_.memory_kib) + ",hugetlb=on,hugetlbsize=2M"};
    case Ram::kTwoBlocks:
      return two_nodes(backend("file", "ram0", shape_.memory_kib / 2) + in_file);
    case Ram::kTwoMemfds:
      return two_nodes(backend("memfd", "ram0", shape_.memory_kib / 2));
    case Ram::kPrivate:
      break;
  }
  return {"-machine", shape_.machine};
}

std::vector<std::string> Guest::Command() const {
  std::vector<std::string> command{*QemuPath(shape_.qemu), "-name", kGuestName, "-accel", "tcg", "-display", "none"};
  const std::vector<std::string> ram = RamOptions();
  command.insert(command.end(), ram.begin(), ram.end());
  const std::vector<std::string> rest{"-nodefaults",
                                      "-m",
                                      fmt::format("{}K", shape_.memory_kib),
                                      "-kernel",
                                      TEST_GUEST_KERNEL,
                                      "-append",
                                      shape_.options,
                                      "-chardev",
                                      fmt::format("file,id=console,path={},append=on", log_path_),
                                      "-serial",
                                      "chardev:console",
                                      "-pidfile",
                                      pid_path_};
  command.insert(command.end(), rest.begin(), rest.end());
  return command;
}

void Guest::Start(const std::vector<std::string>& more_options) {
  std::vector<std::string> command = Command();
  command.insert(command.end(), more_options.begin(), more_options.end());
  command.insert(command.end(), {"-qmp", "unix:" + qmp_path_ + ",server=on,wait=off"});
  qemu_ = std::make_unique<ProgramRun>(command);
  // QEMU listens before it is ready, and may still fail then.
  WaitUntil("QEMU's answer", [this] {
    if (qemu_->Ended()) throw std::runtime_error("QEMU ended: " + qemu_->err());
    try {
      return !Status().empty();
    } catch (const Error&) {
      return false;
    }
  });
}

void Guest::Boot(const std::vector<std::string>& more_options) {
  Start(more_options);
  console().WaitForTicks(2);
}

void Guest::Kill() {
  qemu_.reset();
  for (const pid_t pid : Processes()) ::kill(pid, SIGKILL);
  WaitUntil("QEMU's end", [this] { return Processes().empty(); });
}

std::vector<pid_t> Guest::Processes() const {
  std::vector<pid_t> found;
  for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
    const std::optional<pid_t> pid = ProcessNumber(entry.path());
    if (!pid) continue;
    const std::string command = ReadCommandLine(entry.path());  // words end with a NUL
    const bool is_program = command.starts_with(std::string(VMRESTORE_PROGRAM) + '\0');
    if (!is_program && command.find(pid_path_ + '\0') != std::string::npos) found.push_back(*pid);
  }
  return found;
}

std::unique_ptr<QmpClient> Guest::Connect() const {
  return std::make_unique<QmpClient>(qmp_path_, Never(), kPatience);
}

std::string Guest::Status() const {
  return QueryStatus(*Connect());
}

}  // namespace vmsave
