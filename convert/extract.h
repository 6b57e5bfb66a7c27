// RAM out of an image, for other programs.
#pragma once

#include <string>
#include <vector>

#include "io/new_file.h"
#include "reader/chunk_reader.h"
#include "reader/read_options.h"
#include "writer/write_options.h"

namespace vmsave {

// Both write all of the file but for its name: NewFile::Publish comes next. Pages that are zero are holes. The image is
// read as TransferPages does. They throw Error{kDamaged}, Error{kFailed}, Error{kInterrupted}.

// One RAM block as a raw file. Throws Error{kUsage} naming those that there are where the image has none of that name.
WriteTotals ExtractBlock(const Image& image, const std::string& block, NewFile& file, const ReadOptions& options,
                         PageChecks checks, Progress& progress, const Interrupt& interrupt);

struct ElfCore {
  WriteTotals totals;
  std::vector<std::string> left_out;  // large RAM blocks that are not in it: memory devices, graphics cards
};

// The main memory of a PC as an ELF core, with its pages at their guest-physical addresses. Throws Error{kFailed} for
// other machines, and where it cannot be told which RAM blocks that memory is, in which order.
ElfCore ExtractElfCore(const Image& image, NewFile& file, const ReadOptions& options, PageChecks checks,
                       Progress& progress, const Interrupt& interrupt);

}  // namespace vmsave
