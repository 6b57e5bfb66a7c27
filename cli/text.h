// Sizes and times as people write and read them.
#pragma once

#include <string>
#include <string_view>

#include "format/units.h"

namespace vmsave {

// "512 bytes", "64.0 KiB", "3.1 GiB".
std::string FormatBytes(ByteCount bytes);

// "1.7 of 4.0 GiB", both in the unit of the whole.
std::string FormatPart(ByteCount part, ByteCount whole);

// "1.9 GiB/s"; "-" where no time has passed.
std::string FormatRate(ByteCount bytes, double seconds);

// "7 ms", "1.61 s", "2 min 5 s".
std::string FormatSeconds(double seconds);

// "4096", "64K", "512M", "2G", "1T", also "2GiB": powers of 1024. Throws UsageError naming `what`.
ByteCount ParseBytes(std::string_view text, std::string_view what);

}  // namespace vmsave
