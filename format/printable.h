// Text that somebody else made up, for a terminal: names in images, answers of QEMU.
#pragma once

#include <string>
#include <string_view>

namespace vmsave {

// Control characters are written as \n, \t or \x1b, bytes that are no UTF-8 as \xff; all else stays as it is, and so
// does what comes out where it is put in again.
std::string Printable(std::string_view text);

}  // namespace vmsave
