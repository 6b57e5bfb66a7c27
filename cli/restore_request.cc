#include "cli/restore_request.h"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>

#include "cli/text.h"

namespace vmsave {
namespace {

ByteCount ParseFillRate(const std::string& text) {
  const ByteCount rate = ParseBytes(text, "--fill-rate");
  if (rate >= kPageSize) return rate;
  throw UsageError("--fill-rate", fmt::format("\"{}\" is less than a page (4K) per second", text), "or --fill off");
}

void AddOptions(CLI::App& app, RestoreRequest& request) {
  app.add_option("IMAGE", request.image, "the image to restore");
  app.add_option("--qmp", request.qmp, "QMP unix socket of a QEMU that waits with -incoming defer")
      ->type_name("SOCKET");
  app.add_option("--via", request.via,
                 "How RAM gets into QEMU: memory (shared RAM, read straight into it), native (QEMU reads the image), "
                 "multifd (parallel channels into QEMU), stream (any QEMU), or auto (default), the first that works")
      ->check(OneOf({"auto", "memory", "native", "multifd", "stream"}))
      ->type_name("WAY");
  app.add_flag("--lazy{yes}", request.lazy,
               "The guest runs at once; its RAM is read as it needs it, and the rest behind that. auto: where QEMU and "
               "this host can do it, else as without")
      ->check(OneOf({"yes", "auto"}))
      ->disable_flag_override(false)
      ->type_name("[=WHEN]");
  app.add_flag("--no-record", request.no_record,
               "With --lazy: do not note in IMAGE.ws what the guest needs first, for the next time");
  app.add_flag("--recover", request.recover,
               "Go on with a guest that was restored with --lazy, and whose vmrestore is there no more");
  app.add_option("--fill", request.fill,
                 "With --lazy or --recover: on (default), or off: nothing is read before the guest needs it, for as "
                 "long as it lives")
      ->check(OneOf({"on", "off"}))
      ->type_name("WHETHER");
  app.add_option_function<std::string>(
         "--fill-rate", [&request](const std::string& text) { request.fill_rate = ParseFillRate(text); },
         "With --lazy or --recover: read at most so many bytes per second ahead of the guest (50M, 1G)")
      ->type_name("BYTES");
  app.add_option("--verify", request.verify,
                 "metadata (default: all but the pages first, pages on their way), full (everything first) or off")
      ->check(OneOf({"metadata", "full", "off"}))
      ->type_name("WHAT");
  app.add_flag("--running", request.running, "Resume the guest even if it was paused when saved");
  app.add_flag("--paused", request.paused, "Leave the guest paused");
  app.add_flag("--detach", request.detach, "Return as soon as the guest is restored; QEMU stays");
  AddTransferOptions(app, request.transfer);
  AddProgressOption(app, request.progress);
}

// Parses what stands before "--", and takes what follows it as it is. False where the program is to end.
bool ParseCommandLine(CLI::App& app, int argc, char** argv, RestoreRequest& request) {
  char** const end = argv + argc;
  char** const separator = std::find(argv, end, std::string_view("--"));
  if (separator != end) request.command.assign(separator + 1, end);
  const char* const stray = separator != end ? "unexpected argument" : "-- is missing before the QEMU command";
  app.prefix_command();  // an argument too many is a command without its "--", whose options are not ours
  return ParseOptions(app, static_cast<int>(separator - argv), argv, stray);
}

void CheckTogether(const CLI::App& app, const RestoreRequest& request) {
  RefuseTogether(app, {"--running", "--paused"});
  RefuseTogether(app, {"--qmp", "--detach"});
  RefuseTogether(app, {"--lazy", "--via"});
  RefuseTogether(app, {"--fill", "--fill-rate"});
  for (const char* option : {"--fill", "--fill-rate"}) {
    if (app.count(option) != 0 && request.lazy.empty() && !request.recover) {
      throw UsageError(option, "it is for --lazy and --recover alone");
    }
  }
  if (request.no_record && request.lazy.empty()) throw UsageError("--no-record", "it is for --lazy alone");
  RefuseTogether(app, {"--recover", "--lazy"});
  RefuseTogether(app, {"--recover", "--via"});
  if (request.recover && !request.qmp && request.command.empty()) {
    throw UsageError("--recover", "no QEMU is named", "give --qmp and a socket of the QEMU that has the guest");
  }
  if (request.recover && !request.command.empty()) {
    throw UsageError("--recover and a QEMU command", "the guest is in its QEMU already", "name it by --qmp SOCKET");
  }
  if (request.qmp && !request.command.empty()) {
    throw UsageError("--qmp and a QEMU command", "only one of them can be given");
  }
  if (!request.qmp && request.command.empty()) {
    throw UsageError("no QEMU is named", "give -- and the QEMU command behind IMAGE, or --qmp SOCKET");
  }
}

}  // namespace

std::optional<RestoreRequest> ParseRestoreRequest(int argc, char** argv) {
  RestoreRequest request;
  const auto app = MakeApp(
      "vmrestore",
      "Brings a saved guest back: into the QEMU that the command starts, and then stays until it ends; or into "
      "a QEMU that waits with -incoming defer.",
      {"[OPTIONS] IMAGE -- QEMU COMMAND...", "[OPTIONS] --qmp SOCKET IMAGE", "--recover [OPTIONS] --qmp SOCKET IMAGE"});
  AddOptions(*app, request);
  if (!ParseCommandLine(*app, argc, argv, request)) return std::nullopt;
  CheckTogether(*app, request);
  return request;
}

RestoreOptions MakeRestoreOptions(const RestoreRequest& request, const Transfer& transfer) {
  RestoreOptions restore;
  for (const RestoreWay way : {RestoreWay::kMemory, RestoreWay::kNative, RestoreWay::kMultifd, RestoreWay::kStream}) {
    if (request.via == RestoreWayName(way)) restore.wish.way = way;
  }
  restore.wish.read = {transfer.channels, transfer.engine, transfer.cache};
  restore.wish.pages_verified = request.verify == "full";
  restore.wish.checks = request.verify == "off" ? PageChecks::kOff : PageChecks::kOn;
  if (request.running) restore.run = true;
  if (request.paused) restore.run = false;
  return restore;
}

ServeOptions MakeServeOptions(const RestoreRequest& request, const RestoreWish& wish) {
  return {wish.read, wish.checks, {request.fill == "on", request.fill_rate}};
}

}  // namespace vmsave
