// Names that nobody else has or can foresee.
#pragma once

#include <string>

namespace vmsave {

// Six letters and digits. Throws std::exception where the system has no randomness to give.
std::string RandomSuffix();

}  // namespace vmsave
