// What somebody else needs to go on serving a guest that may run already, as a guard is told it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "qemu/lazy_restore.h"

namespace vmsave {

struct ServingRecord {
  std::string image;        // an absolute path
  std::optional<bool> run;  // whether the guest is to run; nothing once that is settled
  unsigned channels = 1;
  bool uring = false;
  bool bypass_cache = false;
  bool check_pages = true;
  bool fill = true;
  std::uint64_t fill_rate = 0;  // 0: none
  std::uint64_t image_identity = 0;
  std::vector<std::uint64_t> host_pages{};  // in bytes, of each RAM block of the image
  bool out_of_band = false;                 // whether the QMP connection executes commands out of band
};

ServingRecord MakeServingRecord(const Image& image, const ServeOptions& serve, const LazyBegin& begin,
                                const QmpClient& qmp);

// With which it was begun.
LazyOptions OptionsOf(const ServingRecord& record);

// As QEMU has them. REQUIRES: the record is of that image (CheckIsOf).
std::vector<PostcopyBlock> BlocksOf(const ServingRecord& record, const Image& image);

}  // namespace vmsave
