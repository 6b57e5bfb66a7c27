// A file that appears under its name only when it is complete.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <utility>

#include "io/direct_alignment.h"
#include "io/file_descriptor.h"

namespace vmsave {

enum class Replace { kNo, kYes };
enum class CacheUse { kPageCache, kBypass };

// The file is complete and has its name, but a power failure could still undo that.
class NameNotDurable : public Error {
 public:
  explicit NameNotDurable(const Error& error) : Error(error) {}
};

// Written under a temporary name in the target's directory (".TARGET-NAME.XXXXXX", mode 0600, O_EXCL | O_NOFOLLOW);
// Publish makes it durable and gives it its name. Destroyed without Publish, it is unlinked and the target stays as it
// was. The directory is opened once and everything is done in it: it may be renamed meanwhile.
class NewFile {
 public:
  // Told where the temporary is going to be made, before it is: who has to remove it should this process be killed.
  using Announce = std::function<void(const FileDescriptor& directory, const std::string& temporary)>;

  // Checks everything that can be checked first: `path` is not a directory, a device, a socket or a symbolic link;
  // nothing is there, unless `replace`; the directory exists and is writable; with kBypass, the file system takes
  // O_DIRECT. Throws Error{kFailed} saying which.
  NewFile(const std::string& path, Replace replace, CacheUse cache, const Announce& announce = {});
  NewFile(NewFile&& other) noexcept;
  NewFile& operator=(NewFile&&) = delete;
  ~NewFile();

  // For metadata: through the page cache.
  const FileDescriptor& buffered() const { return buffered_; }

  // For pages: an O_DIRECT descriptor with kBypass, else the buffered one.
  const FileDescriptor& pages() const { return direct_ ? *direct_ : buffered_; }
  bool bypasses_cache() const { return direct_.has_value(); }
  // Of pages(); 1 and 1 for the buffered one.
  DirectAlignment alignment() const { return alignment_; }

  // What an unprivileged user can still write to the file system, as statvfs(3) f_bavail tells.
  ByteCount FreeSpace() const;

  // fdatasync of what was written so far.
  void Sync() const;

  // Sync, close, rename onto the target name, sync the directory. With Replace::kNo a file that appeared meanwhile is
  // not replaced (renameat2 RENAME_NOREPLACE, or link(2) where the file system has no such rename, or without either a
  // check just before the rename). Throws Error{kFailed}; the temporary is then unlinked by the destructor. Only when
  // syncing the directory fails is the file under its name all the same: NameNotDurable. The descriptors are closed
  // afterwards. REQUIRES: not called before.
  void Publish();

  const std::string& path() const { return path_; }

 private:
  // The temporary's name in the target's directory, unlinked by the destructor unless it was cleared.
  struct Temporary {
    explicit Temporary(FileDescriptor in) : directory(std::move(in)) {}
    Temporary(Temporary&& other) noexcept
        : directory(std::move(other.directory)), name(std::exchange(other.name, std::string())) {}
    Temporary& operator=(Temporary&&) = delete;
    ~Temporary();

    FileDescriptor directory;
    std::string name;
  };

  void CheckTarget() const;
  FileDescriptor CreateTemporary(const Announce& announce);
  void GiveTargetName();
  void SyncDirectory() const;

  std::string path_;
  std::string target_name_;  // the last part of path_
  Replace replace_;
  Temporary temporary_;  // complete before anything can throw, so that a failed constructor unlinks too
  FileDescriptor buffered_;
  std::optional<FileDescriptor> direct_;
  DirectAlignment alignment_{1, 1};
};

}  // namespace vmsave
