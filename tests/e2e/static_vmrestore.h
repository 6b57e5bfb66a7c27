// vmrestore as it goes to a host without the libraries.
#pragma once

namespace vmsave {

// Null where the build has none.
#ifdef VMRESTORE_STATIC_PROGRAM
inline constexpr const char* kStaticVmrestore = VMRESTORE_STATIC_PROGRAM;
#else
inline constexpr const char* kStaticVmrestore = nullptr;
#endif

inline constexpr const char* kNoStaticPrograms = "this build has no static programs (VMSAVE_STATIC)";

}  // namespace vmsave
