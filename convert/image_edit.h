// Changes the bytes of a save image before its stream, in place. The image keeps its length, owner, mode and links, and
// no byte of the stream moves.
#pragma once

#include <string>
#include <vector>

#include "reader/image_head.h"

namespace vmsave {

// Holds the image open, with an exclusive flock(2) on it. After a crash at any moment, of this program or of the host,
// every reader of vmsave finds the image whole, either as it was or as it was to be (FORMAT.md, "Edit record"). Takes
// room on the file system for the bytes before the stream once more, while it replaces them. Not synchronised.
class ImageEdit {
 public:
  // Throws Error{kFailed} where the file cannot be written to, or somebody else holds the lock; Error{kDamaged} for
  // what has no save header, for what ReadImageHead refuses, and where version 3's checksum of these bytes is wrong.
  explicit ImageEdit(const std::string& path);

  const ImageHead& head() const { return head_; }
  const std::string& path() const { return file_.name(); }

  // For reading and writing, through the page cache.
  const FileDescriptor& file() const { return file_; }

  // Whether an edit before this one was interrupted.
  bool unfinished() const { return head_.edit != EditTrace::kNone; }

  // Brings an interrupted edit to its end, durably: what counts already is put in its place, the rest is taken away.
  // Throws Error{kFailed}; the image is then as valid as before.
  void Finish();

  // Durable on return; ends an interrupted edit first. `before_stream` holds the header of the same image: version,
  // format, data_length and extension but for the hash are those of head(). Throws Error{kFailed}; the message says
  // where the new bytes count all the same. REQUIRES: as long as head().before_stream.
  void Replace(std::vector<std::byte> before_stream);

 private:
  EditedImage Edited() const { return EditedImage::Of(head_.header, head_.before_stream, head_.image_length); }
  void PutRecord(const EditedImage& edited);

  FileDescriptor file_;
  ImageHead head_;
};

}  // namespace vmsave
