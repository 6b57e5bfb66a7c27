#include "io/io_priority.h"

#include <sys/syscall.h>
#include <unistd.h>

namespace vmsave {
namespace {

// The kernel's (include/uapi/linux/ioprio.h, which is no C++ everywhere).
constexpr int kWhoProcess = 1;
constexpr int kClassShift = 13;
constexpr int kRealTime = 1;
constexpr int kBestEffort = 2;
constexpr int kIdle = 3;
constexpr int kMiddleLevel = 4;

int Value(IoPriority priority) {
  switch (priority) {
    case IoPriority::kFirst:
      return kRealTime << kClassShift | kMiddleLevel;
    case IoPriority::kNormal:
      return kBestEffort << kClassShift | kMiddleLevel;
    case IoPriority::kLast:
      return kIdle << kClassShift;
  }
  return 0;
}

}  // namespace

bool SetIoPriority(IoPriority priority) {
  constexpr int kCallingThread = 0;
  return ::syscall(SYS_ioprio_set, kWhoProcess, kCallingThread, Value(priority)) == 0;
}

}  // namespace vmsave
