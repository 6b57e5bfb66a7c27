// vmimage verify: every checksum of an image.
#include <fmt/format.h>

#include "cli/image_commands.h"
#include "cli/text.h"
#include "format/printable.h"
#include "reader/verify.h"

namespace vmsave {
namespace {

void PrintReport(const Image& image, const VerifyReport& report) {
  const std::string path = Printable(image.path());
  for (const std::string& damage : report.damage) fmt::print("{}\n", Printable(damage));
  if (!report.damage.empty()) {
    const std::size_t places = report.damage.size();
    fmt::print("{}: damaged, {} {}\n", path, places, places == 1 ? "place" : "places");
  } else if (report.has_checksums) {
    fmt::print("{}: no damage, {} of pages checked\n", path, FormatBytes(report.checked));
  } else {
    fmt::print("{}: has no checksums; its structure was checked, its pages could not be\n", path);
  }
}

class VerifyCommand final : public ImageCommand {
 public:
  explicit VerifyCommand(CLI::App& command) : ImageCommand(command) {
    command.add_option("IMAGE", image_, "the image to look into");
    AddTransferOptions(command, transfer_);
    AddProgressOption(command, progress_);
  }

  int Run(const Interrupt& interrupt) override {
    const ProgressStyle style = ParseProgressStyle(progress_);
    Progress progress;
    VerifyReport report;
    ReportOutcome(progress, style, [&] {
      const Transfer transfer = ResolveTransfer("vmimage", transfer_);
      const Image image(image_);
      TellAssumedAlignment("vmimage", image, transfer.cache);
      report = ShowProgress(progress, style, [&] {
        return Verify(image, {transfer.channels, transfer.engine, transfer.cache}, progress, interrupt);
      });
      if (style != ProgressStyle::kJson) PrintReport(image, report);
      return nlohmann::json{{"damage", report.damage},
                            {"has_checksums", report.has_checksums},
                            {"checked_bytes", report.checked.value()}};
    });
    return report.damage.empty() ? 0 : kExitDamaged;
  }

 private:
  std::string image_;
  TransferOptions transfer_;
  std::string progress_ = "auto";
};

}  // namespace

std::unique_ptr<ImageCommand> AddVerify(CLI::App& app) {
  return std::make_unique<VerifyCommand>(
      *AddCommand(app, "verify", "Checks every checksum, and names what is damaged", "[OPTIONS] IMAGE"));
}

}  // namespace vmsave
