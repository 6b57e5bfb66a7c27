#include "convert/image_edit.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

namespace vmsave {
namespace {

[[noreturn]] void Refuse(const FileDescriptor& file, ErrorKind kind, std::string_view why,
                         std::string_view advice = "") {
  throw Error(kind, fmt::format("cannot change {}", file.name()), why, advice);
}

FileDescriptor OpenLocked(const std::string& path) {
  FileDescriptor file = OpenImageFile(path, O_RDWR);
  if (::flock(file.number(), LOCK_EX | LOCK_NB) == 0) return file;
  if (errno == EWOULDBLOCK) Refuse(file, ErrorKind::kFailed, "another program is changing it", "try again later");
  // A file system without locks leaves it to the operator.
  if (errno == ENOLCK || errno == ENOSYS || errno == EOPNOTSUPP) return file;
  throw Error::FromErrno(fmt::format("cannot lock {}", path), errno);
}

ImageHead ReadHead(const FileDescriptor& file) {
  std::optional<ImageHead> head = ReadImageHead(file);
  if (!head) Refuse(file, ErrorKind::kDamaged, "it has no save header, and so no description");
  if (!FitsHeaderHash(head->before_stream, head->header)) {
    Refuse(file, ErrorKind::kDamaged, "its header or description is damaged: wrong checksum",
           "restore from another copy");
  }
  return std::move(*head);
}

void Do(const FileDescriptor& file, const std::vector<EditStep>& steps) {
  for (const EditStep& step : steps) {
    if (step.kind == EditStep::Kind::kWrite) {
      WriteAt(file, step.bytes, step.at);
    } else {
      SetFileLength(file, ByteCount{step.at.value()});
    }
    SyncData(file);
  }
}

}  // namespace

ImageEdit::ImageEdit(const std::string& path) : file_(OpenLocked(path)), head_(ReadHead(file_)) {}

void ImageEdit::Finish() {
  if (head_.edit == EditTrace::kRecord) Do(file_, PlanEditCompletion(Edited()));
  if (head_.edit == EditTrace::kIncomplete) Do(file_, PlanEditWithdrawal(Edited()));
  head_.edit = EditTrace::kNone;
}

void ImageEdit::Replace(std::vector<std::byte> before_stream) {
  Finish();
  PutRecord(EditedImage::Of(head_.header, before_stream, head_.image_length));
  head_.before_stream = std::move(before_stream);
  head_.header = DecodeSaveHeader(std::span(head_.before_stream).first<kSaveHeaderBytes>(), path());
  head_.edit = EditTrace::kRecord;
  try {
    Finish();
  } catch (const Error& error) {
    throw Error(error.kind(), fmt::format("{} is changed, but its change cannot be finished", path()), error.what(),
                "vmsave's programs read it as it is to be; change it again to finish");
  }
}

// The most likely failure is a full disk: nothing of the image has been touched then.
void ImageEdit::PutRecord(const EditedImage& edited) {
  try {
    Do(file_, PlanEditRecord(edited));
  } catch (const Error&) {
    Do(file_, PlanEditWithdrawal(Edited()));
    throw;
  }
}

}  // namespace vmsave
