// How far a restore is: all that must be known to undo it, or to finish it, in its place.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "qemu/serving_record.h"

namespace vmsave {

struct RestoreRecord {
  std::vector<std::string> directories;  // with sockets
  std::string qmp_socket;
  std::string argument;     // in the command line of QEMU alone; empty where none is started
  std::optional<bool> run;  // the guest is loaded: whether it is to run
  std::optional<ServingRecord> serving;
  bool unserved = false;          // the guest still needs its memory, and the operator is to see to that
  bool operator_is_told = false;  // how
  bool released = false;          // nothing but the directory is left to the guard
};

// In a form that leaves paths as they are, whatever bytes they have.
std::string EncodeRestoreRecord(const RestoreRecord& record);

// REQUIRES: what EncodeRestoreRecord has returned.
RestoreRecord DecodeRestoreRecord(const std::string& text);

}  // namespace vmsave
