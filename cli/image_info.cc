// vmimage info: what is in an image.
#include <fmt/format.h>

#include "cli/image_commands.h"
#include "cli/text.h"
#include "format/printable.h"
#include "qemu/guest_facts.h"
#include "qemu/host_needs.h"
#include "reader/stream_pages.h"
#include "reader/verify.h"
#include "reader/working_set_file.h"

namespace vmsave {
namespace {

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
  StreamWalk walk;
  const std::vector<StreamBlock>& blocks = image.contents().blocks;
  if (!image.has_fixed_offsets() && !blocks.empty()) walk = WalkStream(image, read, progress, interrupt);
  std::vector<BlockInfo> infos;
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    const PageBitmap& present = image.has_fixed_offsets() ? blocks[i].present : walk.present[i];
    infos.push_back({blocks[i].name, blocks[i].length, PagesToBytes(PageIndex{present.CountSet()})});
  }
  return infos;
}

std::string Checksums(const Image& image) {
  return image.integrity() ? "XXH3-64" : "none";
}

// What the image says is shown all the same, but not vouched for.
std::optional<std::string> FindDamage(const Image& image) {
  return FindMetadataDamage(image);
}

std::string_view ByteOrderName(std::endian byte_order) {
  return byte_order == std::endian::big ? "big-endian" : "little-endian";
}

BodyFormat FormatOf(const Image& image) {
  return image.header() ? image.header()->format : BodyFormat::kRaw;
}

nlohmann::json AsJson(const std::optional<Release>& release) {
  return release ? nlohmann::json(AsText(*release)) : nlohmann::json();
}

nlohmann::json AsJson(const Readers& readers) {
  return {{"possible", !readers.none}, {"since", AsJson(readers.since)}};
}

nlohmann::json NeedsAsJson(const Image& image) {
  const MachineReleases machine = ReleasesWith(image.contents().frame.machine);
  return {{"qemu", {{"since", AsJson(machine.since)}, {"removed_in", AsJson(machine.removed_in)}}},
          {"vmrestore", {{"qemu_since", AsText(kOldestQemuOfVmrestore)}}},
          {"qemu_alone", AsJson(QemuAlone(image.kind()))},
          {"virsh", AsJson(Virsh(image.kind(), FormatOf(image)))}};
}

// Nothing where there is none; one that is not the image's, or damaged, is told and no damage of the image.
std::string WorkingSetText(const Image& image) {
  try {
    const std::optional<WorkingSet> set = ReadWorkingSet(image);
    return set ? fmt::format("{} that a lazy restore reads first", FormatBytes(LengthOf(*set))) : "";
  } catch (const Error& error) {
    return fmt::format("not used: {}", error.why());
  }
}

nlohmann::json WorkingSetAsJson(const Image& image) {
  try {
    const std::optional<WorkingSet> set = ReadWorkingSet(image);
    return set ? nlohmann::json{{"bytes", LengthOf(*set).value()}} : nlohmann::json();
  } catch (const Error& error) {
    return {{"error", error.what()}};
  }
}

nlohmann::json InfoAsJson(const Image& image, const std::vector<BlockInfo>& blocks,
                          const std::optional<std::string>& damage) {
  nlohmann::json info{{"image", image.path()},
                      {"kind", ImageKindName(image.kind())},
                      {"machine", image.contents().frame.machine},
                      {"checksums", image.integrity().has_value()},
                      {"file_length", image.file_length().value()},
                      {"disk_usage", image.disk_usage().value()},
                      {"stream_start", image.stream_start().value()},
                      {"needs", NeedsAsJson(image)},
                      {"damage", nlohmann::json::array()},
                      {"blocks", nlohmann::json::array()}};
  if (damage) info["damage"].push_back(*damage);
  if (image.has_fixed_offsets() && !damage) info["working_set"] = WorkingSetAsJson(image);
  if (image.header()) {
    info["edit_interrupted"] = image.edit_trace() != EditTrace::kNone;
    info["version"] = image.header()->version;
    info["format"] = BodyFormatName(image.header()->format);
    info["header_byte_order"] = ByteOrderName(image.header()->byte_order);
    info["was_running"] = image.header()->was_running;
    const DescriptionFacts description = ReadDescription(image.description());
    info["name"] = description.name;
    info["description_names_devices"] = description.names_devices;
  }
  for (const BlockInfo& block : blocks) {
    info["blocks"].push_back({{"name", block.name},
                              {"length", block.length.value()},
                              {"pages", block.length.value() / kPageBytes},
                              {"pages_present", block.present->value() / kPageBytes}});
  }
  return info;
}

using Line = void (*)(std::string_view label, const std::string& value);

std::string QemuWith(const std::string& machine) {
  const MachineReleases releases = ReleasesWith(machine);
  if (!releases.since) return fmt::format("one that has machine type {}", machine);
  const std::string end = releases.removed_in ? fmt::format(", before {}", AsText(*releases.removed_in)) : "";
  return fmt::format("{} or newer{} (machine type {})", AsText(*releases.since), end, machine);
}

std::string QemuAloneText(const Image& image) {
  const Readers readers = QemuAlone(image.kind());
  if (readers.none) return "cannot read it: it is compressed";
  const std::string which = readers.since ? fmt::format("{} or newer", AsText(*readers.since)) : "any";
  return fmt::format("{}, from byte {} of the file on", which, image.stream_start().value());
}

std::string VirshText(const Image& image) {
  const Readers readers = Virsh(image.kind(), FormatOf(image));
  if (readers.since) return fmt::format("libvirt {} or newer", AsText(*readers.since));
  if (!readers.none) return "any libvirt";
  if (!image.header()) return "cannot restore it: it has no save header";
  return fmt::format("cannot restore it; vmimage convert --to libvirt-sparse for libvirt {} or newer, --to 2 for any",
                     AsText(*Virsh(ImageKind::kLibvirtSparse, BodyFormat::kSparse).since));
}

void PrintNeeds(const Image& image, Line line) {
  const std::string& machine = image.contents().frame.machine;
  if (!machine.empty()) line("QEMU:", QemuWith(machine));
  line("vmrestore:", fmt::format("into such a QEMU, {} or newer", AsText(kOldestQemuOfVmrestore)));
  line("QEMU alone:", QemuAloneText(image));
  line("virsh:", VirshText(image));
  if (image.header() && !ReadDescription(image.description()).names_devices) {
    line("description:", "vmsave's own, which names no devices: not a libvirt domain, as virsh would need");
  }
}

void PrintInfo(const Image& image, const std::vector<BlockInfo>& blocks, const std::optional<std::string>& damage) {
  const Line line = [](std::string_view label, const std::string& value) {
    fmt::print("{:<13}{}\n", label, Printable(value));
  };
  line("image:", image.path());
  if (damage) line("DAMAGED:", *damage);
  line("kind:", std::string(ImageKindName(image.kind())));
  if (image.header()) {
    line("version:", fmt::format("{}, format {}", image.header()->version, BodyFormatName(image.header()->format)));
    if (image.header()->byte_order == std::endian::big) fmt::print("header byte order: big-endian\n");
    line("guest:", ReadDescription(image.description()).name);
    line("was running:", image.header()->was_running ? "yes" : "no");
    if (image.edit_trace() != EditTrace::kNone) line("edit:", "interrupted; the next vmimage setxml finishes it");
  }
  if (!blocks.empty()) line("machine:", image.contents().frame.machine);
  line("checksums:", Checksums(image));
  line("file length:", FormatBytes(image.file_length()));
  line("disk usage:", FormatBytes(image.disk_usage()));
  if (image.has_fixed_offsets() && !damage) {
    if (const std::string set = WorkingSetText(image); !set.empty()) line("working set:", set);
  }
  PrintNeeds(image, line);
  if (blocks.empty()) return;
  fmt::print("\n{:<28}{:>12}{:>12}{:>18}\n", "RAM block", "size", "present", "pages present");
  for (const BlockInfo& block : blocks) {
    fmt::print("{:<28}{:>12}{:>12}{:>18}\n", Printable(block.name), FormatBytes(block.length),
               FormatBytes(*block.present),
               fmt::format("{} of {}", block.present->value() / kPageBytes, block.length.value() / kPageBytes));
  }
}

class InfoCommand final : public ImageCommand {
 public:
  explicit InfoCommand(CLI::App& command) : ImageCommand(command) {
    command.add_flag("--json", json_, "Print an object for scripts");
    command.add_option("IMAGE", image_, "the image to look into");
    AddTransferOptions(command, transfer_);
  }

  int Run(const Interrupt& interrupt) override {
    const Transfer transfer = ResolveTransfer("vmimage", transfer_);
    const Image image(image_);
    TellAssumedAlignment("vmimage", image, transfer.cache);
    const ReadOptions read{transfer.channels, transfer.engine, transfer.cache};
    const std::vector<BlockInfo> blocks = QueryBlocks(image, read, interrupt);
    const std::optional<std::string> damage = FindDamage(image);
    if (json_) {
      fmt::print("{}\n", Dump(InfoAsJson(image, blocks, damage)));
    } else {
      PrintInfo(image, blocks, damage);
    }
    return damage ? kExitDamaged : 0;
  }

 private:
  std::string image_;
  bool json_ = false;
  TransferOptions transfer_;
};

}  // namespace

std::unique_ptr<ImageCommand> AddInfo(CLI::App& app) {
  return std::make_unique<InfoCommand>(*AddCommand(
      app, "info", "Tells what is in an image: version, kind, machine, RAM blocks, size", "[OPTIONS] IMAGE"));
}

}  // namespace vmsave
