// vmimage convert: an image of one kind from an image of any kind.
#include <fmt/format.h>

#include <chrono>
#include <filesystem>

#include "cli/description_change.h"
#include "cli/description_file.h"
#include "cli/image_commands.h"
#include "cli/text.h"
#include "convert/convert.h"
#include "io/new_file_guard.h"
#include "qemu/guest_facts.h"

namespace vmsave {
namespace {

using Clock = std::chrono::steady_clock;

TargetKind ParseTarget(const std::string& to) {
  if (to == "2") return TargetKind::kVersion2;
  return to == "3" ? TargetKind::kVersion3 : TargetKind::kLibvirtSparse;
}

BodyFormat ParseCompression(const std::string& name) {
  for (const BodyFormat format :
       {BodyFormat::kGzip, BodyFormat::kBzip2, BodyFormat::kXz, BodyFormat::kLzop, BodyFormat::kZstd}) {
    if (name == BodyFormatName(format)) return format;
  }
  return BodyFormat::kRaw;
}

std::string_view FateName(PageFate fate) {
  constexpr std::string_view kNames[] = {"moved", "shared", "stayed"};
  return kNames[static_cast<int>(fate)];
}

// A bare stream tells little of its guest.
std::string DescribeBareStream(const Image& image) {
  GuestFacts guest;
  guest.name = std::filesystem::path(image.path()).stem().string();
  guest.machine = image.contents().frame.machine;
  for (const StreamBlock& block : image.contents().blocks) guest.memory = std::max(guest.memory, block.length);
  return MakeDescription(guest);
}

class ConvertCommand final : public ImageCommand {
 public:
  explicit ConvertCommand(CLI::App& command) : ImageCommand(command) {
    command
        .add_option("--to", to_,
                    "2 (legacy stream, any host restores it), 3 (fixed offsets, checksums) or libvirt-sparse (virsh "
                    "restore of libvirt 11.2 or newer)")
        ->check(OneOf({"2", "3", "libvirt-sparse"}))
        ->type_name("KIND");
    command.add_option("--compress", compress_, "Of version 2: gzip, bzip2, xz, lzop, zstd or none (default)")
        ->check(OneOf({"none", "gzip", "bzip2", "xz", "lzop", "zstd"}))
        ->type_name("FORMAT");
    command.add_flag("--in-place", in_place_,
                     "Change IMAGE itself, from 3 to libvirt-sparse or back: only its header changes");
    command.add_flag("--force", force_, "Replace an existing TARGET");
    command.add_flag("--no-checksums", no_checksums_, "Version 3 without its checksums");
    command.add_option("--description", description_, "XML to store instead of the image's own")->type_name("FILE");
    command
        .add_option("--verify", verify_,
                    "metadata (default: all but the pages first, pages as they are read; in place, pages first too "
                    "where they lose their checksums), full (everything first) or off")
        ->check(OneOf({"metadata", "full", "off"}))
        ->type_name("WHAT");
    command.add_option("IMAGE", source_, "the image to convert");
    MakeOptional(*command.add_option("TARGET", target_, "the file to write"));
    AddTransferOptions(command, transfer_);
    AddProgressOption(command, progress_);
  }

  int Run(const Interrupt& interrupt) override {
    CheckOptions();
    NewFileGuard guard("vmimage");  // before the first thread
    const ProgressStyle style = ParseProgressStyle(progress_);
    Progress progress;
    ReportOutcome(progress, style, [&] {
      const Clock::time_point start = Clock::now();
      const ConvertSummary summary = ShowProgress(progress, style, [&] {
        return in_place_ ? ConvertItself(progress, interrupt) : ConvertToTarget(guard, progress, interrupt);
      });
      const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
      if (style != ProgressStyle::kJson) PrintLine(stdout, AsText(summary, seconds));
      return AsJson(summary, seconds);
    });
    return 0;
  }

 private:
  void CheckOptions() const {
    if (to_.empty()) throw UsageError("--to is missing", "it is one of 2, 3, libvirt-sparse");
    if (!in_place_ && target_.empty()) throw UsageError("TARGET is missing", "give the file to write, or --in-place");
    if (in_place_ && !target_.empty()) throw UsageError("TARGET and --in-place", "only one of them can be given");
    if (compress_ != "none" && to_ != "2") {
      throw UsageError("--compress", "fixed offsets cannot be compressed", "it goes with --to 2");
    }
    if (no_checksums_ && to_ != "3") throw UsageError("--no-checksums", "it goes with --to 3");
    RefuseTogether(command(), {"--in-place", "--force"});
    RefuseTogether(command(), {"--in-place", "--description"});
  }

  ConvertOptions Options(const Transfer& transfer) const {
    ConvertOptions options;
    options.to = ParseTarget(to_);
    options.compression = ParseCompression(compress_);
    options.checksums = !no_checksums_;
    options.transfer = {transfer.channels, transfer.engine, transfer.cache};
    if (verify_ == "off") options.checks = SourceChecks::kNothing;
    if (verify_ == "full") options.checks = SourceChecks::kFull;
    if (description_) options.description = ReadDescriptionFile(*description_);
    return options;
  }

  ConvertSummary ConvertToTarget(NewFileGuard& guard, Progress& progress, const Interrupt& interrupt) const {
    const Transfer transfer = ResolveTransfer("vmimage", transfer_);
    ConvertOptions options = Options(transfer);
    const Image image(source_);
    if (!image.header() && !options.description) options.description = DescribeBareStream(image);
    if (image.header() && options.description) {
      CheckDescriptionChange(image.description(), *options.description, *description_);
    }
    NewFile target(target_, force_ ? Replace::kYes : Replace::kNo, transfer.cache, guard.AnnounceFile());
    const ConvertSummary summary = Convert(image, target, options, progress, interrupt);
    target.Publish();
    return summary;
  }

  ConvertSummary ConvertItself(Progress& progress, const Interrupt& interrupt) const {
    return ConvertInPlace(source_, Options(ResolveTransfer("vmimage", transfer_)), progress, interrupt);
  }

  std::string AsText(const ConvertSummary& summary, double seconds) const {
    const std::string to = to_ == "libvirt-sparse" ? to_ : "version " + to_;
    const std::string kind = compress_ == "none" ? to : fmt::format("{}, {}", to, compress_);
    const std::string result =
        fmt::format("{} is {} now: {} RAM, file of {}, {}", in_place_ ? source_ : target_, kind,
                    FormatBytes(summary.ram), FormatBytes(summary.file_length), FormatSeconds(seconds));
    switch (summary.pages) {
      case PageFate::kMoved:
        return result;
      case PageFate::kShared:
        return fmt::format("{}, sharing its pages with {}", result, source_);
      case PageFate::kStayed:
        return result + ", its pages where they were";
    }
    return result;
  }

  nlohmann::json AsJson(const ConvertSummary& summary, double seconds) const {
    return {{"image", in_place_ ? source_ : target_},
            {"to", to_},
            {"compression", compress_},
            {"ram_bytes", summary.ram.value()},
            {"file_length", summary.file_length.value()},
            {"pages", FateName(summary.pages)},
            {"seconds", seconds}};
  }

  std::string to_;
  std::string compress_ = "none";
  bool in_place_ = false;
  bool force_ = false;
  bool no_checksums_ = false;
  std::optional<std::string> description_;
  std::string verify_ = "metadata";
  std::string source_;
  std::string target_;
  TransferOptions transfer_;
  std::string progress_ = "auto";
};

}  // namespace

std::unique_ptr<ImageCommand> AddConvert(CLI::App& app) {
  return std::make_unique<ConvertCommand>(
      *AddCommand(app, "convert", "Makes an image of another kind from an image", "[OPTIONS] --to KIND IMAGE TARGET"));
}

}  // namespace vmsave
