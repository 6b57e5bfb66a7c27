#include "qemu/guest_ram.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <filesystem>

#include "qemu/memory_tree.h"
#include "qemu/process_maps.h"

namespace vmsave {
namespace {

using Json = QmpClient::Json;
using Access = MemoryMapping::Access;

constexpr std::string_view kPermissionAdvice = "run as the user of QEMU, or as root";

// Ids go into QOM paths and messages: letters, digits and "-._", as QEMU itself demands of them.
bool IsWellFormedId(std::string_view id) {
  const auto allowed = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '.' ||
           c == '_';
  };
  return !id.empty() && id.size() <= 255 && std::all_of(id.begin(), id.end(), allowed);
}

Error UnexpectedAnswer(const QmpClient& qmp, std::string_view what) {
  return Error(ErrorKind::kFailed, fmt::format("cannot look at the RAM of the guest at {}", qmp.socket_path()),
               fmt::format("QEMU's answer about {} is not understood", what));
}

Json QomGet(QmpClient& qmp, const std::string& path, const std::string& property) {
  return qmp.Execute("qom-get", {{"path", path}, {"property", property}});
}

MemoryBackend ReadBackend(QmpClient& qmp, const Json& entry) {
  if (!entry.is_object() || !entry.contains("id") || !entry["id"].is_string() || !entry.contains("size") ||
      !entry["size"].is_number_unsigned()) {
    throw UnexpectedAnswer(qmp, "its memory backends");
  }
  MemoryBackend backend;
  backend.id = entry["id"].get<std::string>();
  if (!IsWellFormedId(backend.id)) throw UnexpectedAnswer(qmp, "the name of a memory backend");
  backend.size = ByteCount{entry["size"].get<std::uint64_t>()};
  const std::string object = "/objects/" + backend.id;
  const Json type = QomGet(qmp, object, "type");
  const Json shared = QomGet(qmp, object, "share");  // query-memdev tells it only since QEMU 6.1
  if (!type.is_string() || !shared.is_boolean()) throw UnexpectedAnswer(qmp, "memory backend " + backend.id);
  backend.type = type.get<std::string>();
  if (!IsWellFormedId(backend.type)) throw UnexpectedAnswer(qmp, "the type of memory backend " + backend.id);
  backend.shared = shared.get<bool>();
  if (backend.type == "memory-backend-file") {
    const Json path = QomGet(qmp, object, "mem-path");
    if (!path.is_string()) throw UnexpectedAnswer(qmp, "the file of memory backend " + backend.id);
    backend.path = path.get<std::string>();
  }
  return backend;
}

// Nothing of a process that has ended, or may not be looked at.
std::vector<ProcessMapping> MapsIfReadable(const std::string& process) {
  try {
    return ReadProcessMaps(process);
  } catch (const Error&) {
    return {};
  }
}

// Finds and maps the backends of one guest.
class BackendMapper {
 public:
  BackendMapper(QmpClient& qmp, Access access) : qmp_(qmp), access_(access), pid_(qmp.peer_pid()) {
    if (pid_ <= 0) {
      why_not_proc_ = "QEMU's process cannot be seen from here (is it in a container?)";
      return;
    }
    try {
      mappings_ = ReadProcessMaps(fmt::format("{}", pid_));
      sections_ = ReadMemoryTree(qmp_.ExecuteHmp("info mtree -f"));
    } catch (const QmpError&) {
      throw;
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::kFailed || mappings_) throw;
      why_not_proc_ = error.what();
    }
  }

  // Only what is proved to be the guest's RAM: a file of that name seen from here may be another.
  std::vector<MappedBackend> Map(const std::vector<MemoryBackend>& backends) {
    std::vector<Place> places;
    places.reserve(backends.size());
    for (const MemoryBackend& backend : backends) places.push_back(FindSharedPlace(backend));
    std::vector<MappedBackend> mapped;
    mapped.reserve(places.size());
    for (const Place& place : places) mapped.push_back(MapAsQemuDoes(place));
    return mapped;
  }

  void CheckUnused(const std::vector<MemoryBackend>& backends) {
    std::vector<Place> places;
    for (const MemoryBackend& backend : backends) {
      if (std::optional<Place> place = FindIfShared(backend)) places.push_back(*std::move(place));
    }
    if (!places.empty()) RefuseIfInUse(places);
  }

 private:
  // Where QEMU has a backend.
  struct Place {
    const MemoryBackend& backend;
    std::string block_name;
    ProcessMapping mapping;
  };

  Error Failure(const MemoryBackend& backend, std::string_view why, std::string_view advice = "") const {
    return Error(ErrorKind::kFailed,
                 fmt::format("cannot map RAM {} of the guest at {}", backend.id, qmp_.socket_path()), why, advice);
  }

  Place FindPlace(const MemoryBackend& backend);
  Place FindSharedPlace(const MemoryBackend& backend);
  std::optional<Place> FindIfShared(const MemoryBackend& backend);
  void RefuseIfInUse(const std::vector<Place>& places) const;
  void RefuseIfUsedBy(const std::string& process, const std::vector<Place>& places) const;
  MappedBackend MapAsQemuDoes(const Place& place) const;
  std::vector<std::string> Candidates(const Place& place) const;
  std::optional<MappedBackend> TryCandidate(const Place& place, const std::string& path, std::string& why_not) const;
  MappedBackend MapFile(const MemoryBackend& backend, FileDescriptor file, FileOffset start) const;
  FileDescriptor Open(const std::string& path) const;

  QmpClient& qmp_;
  Access access_;
  pid_t pid_;
  std::optional<std::vector<ProcessMapping>> mappings_;  // of QEMU; nothing where they cannot be read
  std::vector<RamSection> sections_;
  std::string why_not_proc_;
};

// Where the backend lies in QEMU's address space, and so in a file.
BackendMapper::Place BackendMapper::FindPlace(const MemoryBackend& backend) {
  for (const RamSection& section : sections_) {
    // Machine types of QEMU 3.1 and before name regions by the path of the backend.
    if (section.region != backend.id && section.region != "/objects/" + backend.id) continue;
    const std::string answer = qmp_.ExecuteHmp(fmt::format("gpa2hva {:#x}", section.address.value()));
    const std::optional<std::uint64_t> host = ReadHostAddress(answer, section.address, section.region);
    if (!host) continue;  // a running guest has just changed its memory map there: another section will do
    const std::uint64_t offset = section.offset.value();
    if (*host < offset || (*host - offset) % kPageBytes != 0) break;
    std::optional<ProcessMapping> mapping = FindFileMapping(*mappings_, *host - offset, backend.size);
    if (!mapping) {
      throw Failure(backend, fmt::format("process {} has no file mapped where its QEMU says the RAM is", pid_),
                    "the QMP socket must be that of QEMU itself, not of a proxy");
    }
    return {backend, section.region, *std::move(mapping)};
  }
  throw Failure(backend, "no guest address shows it", "a backend that no device of the guest uses cannot be saved");
}

BackendMapper::Place BackendMapper::FindSharedPlace(const MemoryBackend& backend) {
  if (!mappings_) throw Failure(backend, why_not_proc_, kPermissionAdvice);
  Place place = FindPlace(backend);
  if (!place.mapping.shared) throw Failure(backend, "QEMU has mapped it privately", "give the backend share=on");
  if (access_ == Access::kReadWrite && !place.mapping.writable) {
    throw Failure(backend, "QEMU itself has no write access to it", "is the backend readonly=on?");
  }
  return place;
}

std::optional<BackendMapper::Place> BackendMapper::FindIfShared(const MemoryBackend& backend) {
  if (!backend.shared) return std::nullopt;
  try {
    return FindSharedPlace(backend);
  } catch (const Error& error) {
    if (error.kind() == ErrorKind::kInterrupted) throw;
    return std::nullopt;
  }
}

// A guest that still runs in this memory would be overwritten.
void BackendMapper::RefuseIfInUse(const std::vector<Place>& places) const {
  for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
    const std::string process = entry.path().filename().string();
    const bool is_process = std::ranges::all_of(process, [](char c) { return c >= '0' && c <= '9'; });
    if (!is_process || process == std::to_string(pid_) || process == std::to_string(::getpid())) continue;
    RefuseIfUsedBy(process, places);
  }
}

void BackendMapper::RefuseIfUsedBy(const std::string& process, const std::vector<Place>& places) const {
  for (const ProcessMapping& mapping : MapsIfReadable(process)) {
    const auto used = [&mapping](const Place& place) { return mapping.shared && mapping.SameFile(place.mapping); };
    const auto place = std::ranges::find_if(places, used);
    if (place == places.end()) continue;
    throw Error(ErrorKind::kFailed,
                fmt::format("cannot restore into RAM {} of the guest at {}", place->backend.id, qmp_.socket_path()),
                fmt::format("process {} uses {} too", process, place->mapping.path),
                "end the guest that still runs there, or give QEMU another mem-path");
  }
}

MappedBackend BackendMapper::MapAsQemuDoes(const Place& place) const {
  std::string why_not = fmt::format("no descriptor of process {} leads to {}", pid_, place.mapping.path);
  for (const std::string& path : Candidates(place)) {
    if (std::optional<MappedBackend> mapped = TryCandidate(place, path, why_not)) return *std::move(mapped);
  }
  throw Failure(place.backend, why_not, kPermissionAdvice);
}

// Paths that may lead to the mapped file, likely ones only: opening has side effects on devices.
std::vector<std::string> BackendMapper::Candidates(const Place& place) const {
  std::vector<std::string> paths;
  std::error_code error;
  const std::string directory = fmt::format("/proc/{}/fd", pid_);
  for (std::filesystem::directory_iterator entry(directory, error), end; !error && entry != end;
       entry.increment(error)) {
    struct stat status {};
    std::error_code ignored;
    const std::string& path = entry->path().native();
    if (::stat(path.c_str(), &status) != 0 || !S_ISREG(status.st_mode)) continue;
    if (status.st_ino == place.mapping.inode || std::filesystem::read_symlink(path, ignored) == place.mapping.path) {
      paths.push_back(path);
    }
  }
  if (!place.backend.path.empty()) paths.push_back(place.backend.path);
  return paths;
}

// Maps the file at `path` and compares: both mappings as the kernel shows them.
std::optional<MappedBackend> BackendMapper::TryCandidate(const Place& place, const std::string& path,
                                                         std::string& why_not) const {
  try {
    MappedBackend mapped = MapFile(place.backend, Open(path), place.mapping.offset);
    const auto address = reinterpret_cast<std::uintptr_t>(mapped.memory.bytes().data());
    const std::optional<ProcessMapping> own = FindFileMapping(ReadProcessMaps("self"), address, place.backend.size);
    if (!own || !own->SameFile(place.mapping) || own->offset != place.mapping.offset) return std::nullopt;
    mapped.block_name = place.block_name;
    return mapped;
  } catch (const Error& error) {
    why_not = error.what();
    return std::nullopt;
  }
}

FileDescriptor BackendMapper::Open(const std::string& path) const {
  const int mode = access_ == Access::kRead ? O_RDONLY : O_RDWR;
  return OpenFile(path, mode | O_NONBLOCK | O_NOCTTY);  // whatever it turns out to be, opening must not hang
}

MappedBackend BackendMapper::MapFile(const MemoryBackend& backend, FileDescriptor file, FileOffset start) const {
  struct stat status {};
  if (::fstat(file.number(), &status) != 0) {
    throw Error::FromErrno(fmt::format("cannot look at {}", file.name()), errno);
  }
  if (!S_ISREG(status.st_mode)) throw Failure(backend, fmt::format("{} is not a regular file", file.name()));
  const FileOffset end = start + backend.size;  // memory behind the end of the file would be a SIGBUS
  if (end > FileOffset{static_cast<std::uint64_t>(status.st_size)}) {
    throw Failure(backend, fmt::format("{} has {} bytes, but the RAM in it ends at byte {}", file.name(),
                                       status.st_size, end.value()));
  }
  MemoryMapping memory = MemoryMapping::OfFile(file, start, backend.size, access_);
  return {backend, std::move(file), start, std::move(memory), ""};
}

}  // namespace

std::vector<MemoryBackend> QueryMemoryBackends(QmpClient& qmp) {
  const Json entries = qmp.Execute("query-memdev");
  if (!entries.is_array()) throw UnexpectedAnswer(qmp, "its memory backends");
  std::vector<MemoryBackend> backends;
  for (const Json& entry : entries) backends.push_back(ReadBackend(qmp, entry));
  return backends;
}

std::string WhyNotShared(const std::vector<MemoryBackend>& backends) {
  if (backends.empty()) return "the guest's RAM is private to QEMU: it has no memory backend";
  for (const MemoryBackend& backend : backends) {
    if (backend.type != "memory-backend-file" && backend.type != "memory-backend-memfd") {
      return fmt::format("the guest's RAM {} is private to QEMU: a {}", backend.id, backend.type);
    }
    if (!backend.shared) {
      return fmt::format("the guest's RAM {} is private to QEMU: share=off", backend.id);
    }
  }
  return "";
}

std::vector<MappedBackend> MapBackends(QmpClient& qmp, const std::vector<MemoryBackend>& backends,
                                       MemoryMapping::Access access) {
  return BackendMapper(qmp, access).Map(backends);
}

void RefuseMemoryInUse(QmpClient& qmp, const std::vector<MemoryBackend>& backends) {
  BackendMapper(qmp, MemoryMapping::Access::kReadWrite).CheckUnused(backends);
}

}  // namespace vmsave
