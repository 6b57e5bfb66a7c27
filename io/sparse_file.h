// Holes of a file: finding and making them.
#pragma once

#include <optional>

#include "io/file_descriptor.h"

namespace vmsave {

struct FileRange {
  FileOffset begin;
  FileOffset end;
};

// The first stretch of data in [from, end); nothing where all of it is a hole. A file system that cannot tell: all is
// data. Begin and end are rounded outwards to whole pages, but not beyond [from, end).
std::optional<FileRange> NextData(const FileDescriptor& file, FileOffset from, FileOffset end);

// Where that stretch begins; quicker than NextData: to tell where it ends, a file system in memory walks over all of
// it, page by page.
std::optional<FileOffset> NextDataBegin(const FileDescriptor& file, FileOffset from, FileOffset end);

// Whether any of the range is data. True where the file system cannot tell.
bool HoldsData(const FileDescriptor& file, FileRange range);

// Whether the file has storage for all of its length, and so hardly a hole. Known at once.
bool IsFull(const FileDescriptor& file);

// How many bytes of the range are data, reckoned in whole pages; once `enough` are found, no more are looked for. All
// where the file system cannot tell.
ByteCount CountData(const FileDescriptor& file, FileRange range, ByteCount enough);

// Where the last stretch of data in the range ends, reckoned as by NextData; the range's begin where it has none.
FileOffset EndOfData(const FileDescriptor& file, FileRange range);

// Whether it is a file of hugetlbfs, which has storage for whole huge pages only, and cannot be written to but by way
// of a mapping.
bool LiesInHugePages(const FileDescriptor& file);

// Makes the range read as zeros and frees its storage. False where the file cannot do that (hugetlbfs, old file
// systems). Throws Error{kFailed} for anything else.
bool PunchHole(const FileDescriptor& file, FileRange range);

}  // namespace vmsave
