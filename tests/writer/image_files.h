// Images as files: written by the writers under test, looked at and damaged as plain bytes.
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <span>
#include <string>
#include <vector>

#include "format/save_header.h"
#include "io/file_descriptor.h"
#include "writer/image_writer.h"

namespace vmsave {

inline WriteTotals WriteImage(NewFile& file, const GuestImage& guest, std::uint32_t version,
                              const WriteOptions& options, Progress& progress,
                              const Interrupt& interrupt = Interrupt()) {
  const auto write = version == 3 ? WriteVersion3 : WriteVersion2;
  return write(file, guest, options, progress, interrupt);
}

// Writes a whole image and publishes it.
inline WriteTotals SaveImage(const std::string& path, const GuestImage& guest, std::uint32_t version,
                             const WriteOptions& options = {}, CacheUse cache = CacheUse::kPageCache) {
  NewFile file(path, Replace::kYes, cache);
  Progress progress;
  const WriteTotals totals = WriteImage(file, guest, version, options, progress);
  file.Publish();
  return totals;
}

inline std::vector<std::byte> ReadWholeFile(const std::string& path) {
  const FileDescriptor file = OpenFile(path, O_RDONLY);
  std::vector<std::byte> bytes(FileLength(file).value());
  ReadAt(file, bytes, FileOffset{0});
  return bytes;
}

inline void WriteWholeFile(const std::string& path, std::span<const std::byte> bytes) {
  WriteAt(OpenFile(path, O_WRONLY | O_CREAT | O_TRUNC, 0600), bytes, FileOffset{0});
}

// Its magic says that the image is not complete.
inline bool IsPartial(const NewFile& file) {
  const auto partial = EncodeSaveMagic(ImageState::kPartial);
  std::vector<std::byte> magic(partial.size());
  ReadAt(file.buffered(), magic, FileOffset{0});
  return std::ranges::equal(magic, partial);
}

// Changes bytes of a file in place.
inline void Overwrite(const std::string& path, FileOffset offset, std::span<const std::byte> bytes) {
  WriteAt(OpenFile(path, O_WRONLY), bytes, offset);
}

inline void Truncate(const std::string& path, std::uint64_t length) {
  if (::truncate(path.c_str(), static_cast<off_t>(length)) != 0) throw Error::FromErrno("truncate " + path, errno);
}

// One bit of a file is wrong as long as this lives.
class FlippedBit {
 public:
  FlippedBit(const std::string& path, FileOffset offset, unsigned bit)
      : file_(OpenFile(path, O_RDWR)), offset_(offset), mask_(std::byte{1} << bit) {
    Flip();
  }
  FlippedBit(const FlippedBit&) = delete;
  FlippedBit& operator=(const FlippedBit&) = delete;
  ~FlippedBit() { Flip(); }

 private:
  void Flip() {
    std::byte byte{};
    ReadAt(file_, std::span(&byte, 1), offset_);
    byte ^= mask_;
    WriteAt(file_, std::span(&byte, 1), offset_);
  }

  FileDescriptor file_;
  FileOffset offset_;
  std::byte mask_;
};

}  // namespace vmsave
