// Makes an image of one kind from an image of any kind. Start here for how a conversion runs.
#pragma once

#include <optional>
#include <string>

#include "io/new_file.h"
#include "reader/chunk_reader.h"
#include "reader/read_options.h"

namespace vmsave {

enum class TargetKind { kVersion2, kVersion3, kLibvirtSparse };

// How the source is checked. Pages that pass through this process are checked on their way, but with kNothing.
enum class SourceChecks {
  kNothing,
  kMetadata,  // before anything is written: all but the pages; these too where the target has no checksums of them and
              // they stay where they are, since nobody could check them later
  kFull,      // before anything is written: everything
};

struct ConvertOptions {
  TargetKind to{};
  BodyFormat compression = BodyFormat::kRaw;  // of version 2; not kSparse
  bool checksums = true;                      // of version 3
  ReadOptions transfer;                       // for reading and writing alike
  SourceChecks checks = SourceChecks::kMetadata;
  std::optional<std::string> description;  // else the source's own, which bare streams have not: REQUIRED for them
};

// What was done about the pages.
enum class PageFate {
  kMoved,   // read, and written to where the target wants them
  kShared,  // a clone: source and target share their storage
  kStayed,  // only what stands around the stream was changed
};

struct ConvertSummary {
  ByteCount ram;
  ByteCount file_length;
  PageFate pages{};
};

// Writes the whole image and makes it complete and durable, but for its name: NewFile::Publish comes next. The source
// is not changed. Memory is bounded. Between version 3 and libvirt's sparse images the file is cloned where the file
// system can do that, and only what stands around the stream is changed. Throws Error{kDamaged}, Error{kInterrupted},
// and Error{kFailed}, also for what the target's kind cannot hold: a stream without an end of its own (of a guest with
// suppress-vmdesc=on) goes into version 3 alone.
ConvertSummary Convert(const Image& source, NewFile& target, const ConvertOptions& options, Progress& progress,
                       const Interrupt& interrupt);

// The image itself becomes of the other kind, as ChangeEnvelope tells. Throws as Convert does, and Error{kFailed} where
// it takes more than another header, or where somebody else changes the image at the same time.
ConvertSummary ConvertInPlace(const std::string& path, const ConvertOptions& options, Progress& progress,
                              const Interrupt& interrupt);

}  // namespace vmsave
