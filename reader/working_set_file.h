// The working set of an image, in a file beside it: IMAGE.ws.
#pragma once

#include <deque>
#include <optional>
#include <string>
#include <vector>

#include "format/work_plan.h"
#include "format/working_set.h"
#include "reader/image.h"

namespace vmsave {

std::string WorkingSetPath(const Image& image);

// Nothing where there is none. Throws Error{kDamaged} for a file that is none, or another image's, or names what the
// image has not; Error{kFailed} where it cannot be read. REQUIRES: fixed offsets.
std::optional<WorkingSet> ReadWorkingSet(const Image& image);

// Bytes of RAM.
ByteCount LengthOf(const WorkingSet& set);

// What to read, in order.
std::deque<WorkChunk> ChunksOf(const Image& image, const WorkingSet& set);

// `known` and, behind it, what was `demanded` besides.
WorkingSet Extended(const Image& image, const std::optional<WorkingSet>& known, const std::vector<WorkChunk>& demanded);

// Replaces the file. Throws Error{kFailed} where it cannot be written, and where what is there is no working set, or of
// a version that is not known.
void WriteWorkingSet(const Image& image, const WorkingSet& set);

}  // namespace vmsave
