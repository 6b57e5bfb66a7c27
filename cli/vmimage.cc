// vmimage: looks into save images.
#include <fmt/format.h>

#include "cli/program.h"
#include "cli/text.h"
#include "qemu/guest_facts.h"
#include "reader/stream_pages.h"
#include "reader/verify.h"

namespace vmsave {
namespace {

struct Options {
  std::string image;
  bool json = false;
  TransferOptions transfer;
};

struct BlockInfo {
  std::string name;
  ByteCount length;
  std::optional<ByteCount> present;
};

std::string Dump(const nlohmann::json& object) {
  return object.dump(2, ' ', false, nlohmann::json::error_handler_t::replace);
}

std::vector<BlockInfo> QueryBlocks(const Image& image, const ReadOptions& read, const Interrupt& interrupt) {
  Progress progress;
  std::vector<PageBitmap> stream_pages;
  const std::vector<StreamBlock>& blocks = image.contents().blocks;
  if (!image.has_fixed_offsets() && !blocks.empty()) stream_pages = FindStreamPages(image, read, progress, interrupt);
  std::vector<BlockInfo> infos;
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    const PageBitmap& present = image.has_fixed_offsets() ? blocks[i].present : stream_pages[i];
    infos.push_back({blocks[i].name, blocks[i].length, PagesToBytes(PageIndex{present.CountSet()})});
  }
  return infos;
}

std::string Checksums(const Image& image) {
  return image.integrity() ? "XXH3-64" : "none";
}

nlohmann::json InfoAsJson(const Image& image, const std::vector<BlockInfo>& blocks) {
  nlohmann::json info{{"image", image.path()},
                      {"kind", ImageKindName(image.kind())},
                      {"machine", image.contents().frame.machine},
                      {"checksums", image.integrity().has_value()},
                      {"file_length", image.file_length().value()},
                      {"disk_usage", image.disk_usage().value()},
                      {"blocks", nlohmann::json::array()}};
  if (image.header()) {
    info["version"] = image.header()->version;
    info["format"] = BodyFormatName(image.header()->format);
    info["was_running"] = image.header()->was_running;
    info["name"] = ReadDescription(image.description()).name;
  }
  for (const BlockInfo& block : blocks) {
    info["blocks"].push_back({{"name", block.name},
                              {"length", block.length.value()},
                              {"pages", block.length.value() / kPageBytes},
                              {"pages_present", block.present->value() / kPageBytes}});
  }
  return info;
}

void PrintInfo(const Image& image, const std::vector<BlockInfo>& blocks) {
  const auto line = [](std::string_view label, const std::string& value) { fmt::print("{:<13}{}\n", label, value); };
  line("image:", image.path());
  line("kind:", std::string(ImageKindName(image.kind())));
  if (image.header()) {
    line("version:", fmt::format("{}, format {}", image.header()->version, BodyFormatName(image.header()->format)));
    line("guest:", ReadDescription(image.description()).name);
    line("was running:", image.header()->was_running ? "yes" : "no");
  }
  if (!blocks.empty()) line("machine:", image.contents().frame.machine);
  line("checksums:", Checksums(image));
  line("file length:", FormatBytes(image.file_length()));
  line("disk usage:", FormatBytes(image.disk_usage()));
  if (blocks.empty()) return;
  fmt::print("\n{:<28}{:>12}{:>12}{:>18}\n", "RAM block", "size", "present", "pages present");
  for (const BlockInfo& block : blocks) {
    fmt::print("{:<28}{:>12}{:>12}{:>18}\n", block.name, FormatBytes(block.length), FormatBytes(*block.present),
               fmt::format("{} of {}", block.present->value() / kPageBytes, block.length.value() / kPageBytes));
  }
}

int Info(const Options& options, const Transfer& transfer, const Interrupt& interrupt) {
  const Image image(options.image);
  const ReadOptions read{transfer.channels, transfer.engine, transfer.cache};
  const std::vector<BlockInfo> blocks = QueryBlocks(image, read, interrupt);
  if (options.json) {
    fmt::print("{}\n", Dump(InfoAsJson(image, blocks)));
  } else {
    PrintInfo(image, blocks);
  }
  return 0;
}

void PrintReport(const Image& image, const VerifyReport& report) {
  for (const std::string& damage : report.damage) fmt::print("{}\n", damage);
  if (!report.damage.empty()) {
    fmt::print("{}: damaged, {} place(s)\n", image.path(), report.damage.size());
  } else if (report.has_checksums) {
    fmt::print("{}: no damage, {} of pages checked\n", image.path(), FormatBytes(report.checked));
  } else {
    fmt::print("{}: has no checksums; its structure was checked, its pages could not be\n", image.path());
  }
}

int VerifyImage(const Options& options, const Transfer& transfer, const Interrupt& interrupt) {
  const Image image(options.image);
  Progress progress;
  VerifyReport report;
  ShowProgress(progress, transfer.progress, [&] {
    report = Verify(image, {transfer.channels, transfer.engine, transfer.cache}, progress, interrupt);
    return nlohmann::json{
        {"damage", report.damage}, {"has_checksums", report.has_checksums}, {"checked_bytes", report.checked.value()}};
  });
  if (transfer.progress != ProgressStyle::kJson) PrintReport(image, report);
  return report.damage.empty() ? 0 : 3;
}

int Main(int argc, char** argv) {
  Options options;
  const auto app = MakeApp("vmimage", "Looks into save images and checks them.");
  app->require_subcommand(1);
  CLI::App* info = app->add_subcommand("info", "What is in an image: version, kind, machine, RAM blocks, size");
  info->add_flag("--json", options.json, "For scripts");
  CLI::App* verify = app->add_subcommand("verify", "Checks every checksum, and names what is damaged");
  for (CLI::App* command : {info, verify}) {
    command->add_option("IMAGE", options.image, "The image; it is never changed")->required();
    AddTransferOptions(*command, options.transfer);
  }
  if (const auto status = ParseOptions(*app, argc, argv)) return *status;
  const Interrupt interrupt = Interrupt::FromSignals();
  const Transfer transfer = ResolveTransfer("vmimage", options.transfer);
  return info->parsed() ? Info(options, transfer, interrupt) : VerifyImage(options, transfer, interrupt);
}

}  // namespace
}  // namespace vmsave

int main(int argc, char** argv) {
  return vmsave::RunProgram("vmimage", [&] { return vmsave::Main(argc, argv); });
}
