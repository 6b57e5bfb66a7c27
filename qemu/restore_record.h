// How far a restore is: all that must be known to undo it, or to finish it, in its place.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace vmsave {

// A guest that may run already, and is served its memory: what somebody else needs to go on.
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
  std::vector<std::uint64_t> host_pages;  // in bytes, of each RAM block of the image
  bool out_of_band = false;               // whether the QMP connection executes commands out of band
};

struct RestoreRecord {
  std::vector<std::string> directories;  // with sockets
  std::string qmp_socket;
  std::string argument;     // in the command line of QEMU alone; empty where none is started
  std::optional<bool> run;  // the guest is loaded: whether it is to run
  std::optional<ServingRecord> serving;
  bool unserved = false;  // the guest still needs its memory, and the operator is to see to that
  bool released = false;  // nothing but the directory is left to the guard
};

// In a form that leaves paths as they are, whatever bytes they have.
std::string EncodeRestoreRecord(const RestoreRecord& record);

// REQUIRES: what EncodeRestoreRecord has returned.
RestoreRecord DecodeRestoreRecord(const std::string& text);

}  // namespace vmsave
