// What an operator asks of vmrestore.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "cli/program.h"
#include "qemu/restore.h"
#include "reader/page_server.h"

namespace vmsave {

struct RestoreRequest {
  std::string image;
  std::optional<std::string> qmp;
  std::vector<std::string> command;
  std::string via = "auto";
  std::string verify = "metadata";
  bool running = false;
  bool paused = false;
  bool detach = false;
  bool recover = false;
  bool no_record = false;
  std::string lazy;  // empty, "yes" or "auto"
  std::string fill = "on";
  std::optional<ByteCount> fill_rate;
  TransferOptions transfer;
  std::string progress = "auto";
};

// Of vmrestore's command line. Nothing where all is said (--help, --version). Throws UsageError.
std::optional<RestoreRequest> ParseRestoreRequest(int argc, char** argv);

RestoreOptions MakeRestoreOptions(const RestoreRequest& request, const Transfer& transfer);
ServeOptions MakeServeOptions(const RestoreRequest& request, const RestoreWish& wish);

}  // namespace vmsave
