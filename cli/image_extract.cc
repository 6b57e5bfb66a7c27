// vmimage extract: RAM out of an image, for other programs.
#include <fmt/format.h>

#include <filesystem>
#include <system_error>

#include "cli/image_commands.h"
#include "cli/text.h"
#include "convert/extract.h"
#include "io/new_file_guard.h"
#include "reader/verify.h"

namespace vmsave {
namespace {

class ExtractCommand final : public ImageCommand {
 public:
  explicit ExtractCommand(CLI::App& command) : ImageCommand(command) {
    command.add_option("--block", block_, "RAM block to take, as a raw file; vmimage info names them")
        ->type_name("NAME");
    command.add_option("--output", output_, "The file to write, with --block")->type_name("FILE");
    command
        .add_option("--elf", elf_,
                    "The file to write: an ELF core for gdb or crash, with a PC's main memory at its guest-physical "
                    "addresses")
        ->type_name("FILE");
    command.add_flag("--force", force_, "Replace an existing FILE");
    command.add_option("IMAGE", image_, "the image to take it from");
    AddTransferOptions(command, transfer_);
    AddProgressOption(command, progress_);
  }

  int Run(const Interrupt& interrupt) override {
    CheckOptions();
    NewFileGuard guard("vmimage");  // before the first thread
    const ProgressStyle style = ParseProgressStyle(progress_);
    Progress progress;
    ReportOutcome(progress, style, [&] {
      const WriteTotals totals = ShowProgress(progress, style, [&] { return Extract(guard, progress, interrupt); });
      if (style != ProgressStyle::kJson) {
        PrintLine(stdout, fmt::format("{}: {} of RAM, {} present", target(), FormatBytes(totals.ram),
                                      FormatBytes(totals.present)));
      }
      return nlohmann::json{
          {"file", target()}, {"ram_bytes", totals.ram.value()}, {"present_bytes", totals.present.value()}};
    });
    return 0;
  }

 private:
  void CheckOptions() const {
    RefuseTogether(command(), {"--block", "--elf"});
    RefuseTogether(command(), {"--output", "--elf"});
    if (elf_.empty() && block_.empty() != output_.empty()) {
      throw UsageError(block_.empty() ? "--output" : "--block", "--block NAME and --output FILE go together");
    }
    if (elf_.empty() && block_.empty()) {
      throw UsageError("nothing to extract is named", "give --block NAME --output FILE, or --elf FILE");
    }
  }

  // With --force, a part of the image would take its place.
  void RefuseItself() const {
    std::error_code none;
    if (!std::filesystem::equivalent(image_, target(), none)) return;
    throw UsageError(target(), "it is the image itself", "name another file");
  }

  const std::string& target() const { return elf_.empty() ? output_ : elf_; }

  WriteTotals Extract(NewFileGuard& guard, Progress& progress, const Interrupt& interrupt) const {
    const Transfer transfer = ResolveTransfer("vmimage", transfer_);
    const Image image(image_);
    RefuseItself();
    VerifyMetadata(image);
    NewFile file(target(), force_ ? Replace::kYes : Replace::kNo, transfer.cache, guard.AnnounceFile());
    const ReadOptions read{transfer.channels, transfer.engine, transfer.cache};
    ElfCore core;
    if (elf_.empty()) {
      core.totals = ExtractBlock(image, block_, file, read, PageChecks::kOn, progress, interrupt);
    } else {
      core = ExtractElfCore(image, file, read, PageChecks::kOn, progress, interrupt);
    }
    file.Publish();
    for (const std::string& block : core.left_out) {
      PrintLine(stderr,
                fmt::format("vmimage: RAM block {} is not in {}: it is no part of the main memory", block, elf_));
    }
    return core.totals;
  }

  std::string block_;
  std::string output_;
  std::string elf_;
  bool force_ = false;
  std::string image_;
  TransferOptions transfer_;
  std::string progress_ = "auto";
};

}  // namespace

std::unique_ptr<ImageCommand> AddExtract(CLI::App& app) {
  return std::make_unique<ExtractCommand>(*AddCommand(app, "extract", "Writes RAM into a file for other programs",
                                                      "[OPTIONS] --block NAME --output FILE|--elf FILE IMAGE"));
}

}  // namespace vmsave
