// vmsave: saves a guest into an image.
#include <fmt/format.h>

#include <charconv>
#include <fstream>
#include <sstream>

#include "cli/program.h"
#include "cli/text.h"
#include "qemu/guest_facts.h"
#include "qemu/save.h"
#include "writer/synthetic_guest.h"

namespace vmsave {
namespace {

struct Options {
  std::string image;
  std::optional<std::string> qmp;
  std::optional<std::string> synthetic;
  std::optional<int> image_version;
  std::optional<std::string> description;
  std::string after = "quit";
  bool running = false;
  bool paused = false;
  bool no_checksums = false;
  bool force = false;
  TransferOptions transfer;
};

void AddOptions(CLI::App& app, Options& options) {
  app.add_option("IMAGE", options.image, "The file to write")->required();
  auto* guest = app.add_option_group("guest");
  guest->add_option("--qmp", options.qmp, "QMP unix socket of the guest")->type_name("SOCKET");
  auto* synthetic =
      guest->add_option("--synthetic", options.synthetic, "Save an in-process guest: SIZE[,zero=PERCENT][,seed=N]")
          ->type_name("SHAPE");
  guest->require_option(1);
  app.add_option("--image-version", options.image_version,
                 "2 (legacy stream, any host restores it) or 3 (fixed offsets, checksums); default: "
                 "save_image_version of the configuration, else 2")
      ->check(CLI::IsMember({2, 3}))
      ->type_name("N");
  app.add_option("--description", options.description, "Text to store in the image: libvirt's domain XML")
      ->type_name("FILE");
  auto* after = app.add_option("--after", options.after,
                               "What becomes of the guest once the image is complete: quit, pause or resume")
                    ->check(CLI::IsMember({"quit", "pause", "resume"}))
                    ->capture_default_str()
                    ->type_name("WHAT");
  after->excludes(synthetic);
  auto* running =
      app.add_flag("--running", options.running, "Record the guest as running, to be resumed after a restore");
  app.add_flag("--paused", options.paused, "Record the guest as paused")->excludes(running);
  app.add_flag("--no-checksums", options.no_checksums, "Version 3 without its integrity table");
  app.add_flag("--force", options.force, "Replace an existing IMAGE");
  AddTransferOptions(app, options.transfer);
}

std::string ReadDescriptionFile(const std::string& path) {
  const auto cannot_read = [&path] {
    return Error::FromErrno(fmt::format("cannot read the description {}", path), errno);
  };
  std::ifstream file(path, std::ios::binary);
  if (!file) throw cannot_read();
  std::ostringstream text;
  errno = 0;
  text << file.rdbuf();
  if (text.fail() && errno != 0) throw cannot_read();
  CheckDescription(text.str(), path);
  return text.str();
}

std::uint64_t ParseNumber(std::string_view text, std::uint64_t most) {
  std::uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size() || number > most) {
    throw Error(ErrorKind::kUsage, "--synthetic", fmt::format("\"{}\" is not a number up to {}", text, most));
  }
  return number;
}

SyntheticShape ParseShape(const std::string& text) {
  SyntheticShape shape;
  std::string_view rest = text;
  for (bool first = true; !rest.empty(); first = false) {
    const std::string_view word = rest.substr(0, rest.find(','));
    rest.remove_prefix(std::min(rest.size(), word.size() + 1));
    if (first) {
      shape.size = ParseBytes(word, "--synthetic");
    } else if (word.starts_with("zero=")) {
      shape.zero_percent = static_cast<unsigned>(ParseNumber(word.substr(5), 100));
    } else if (word.starts_with("seed=")) {
      shape.seed = ParseNumber(word.substr(5), ~std::uint64_t{0});
    } else {
      throw Error(ErrorKind::kUsage, "--synthetic", fmt::format("\"{}\" is not known", word),
                  "write 2G,zero=50,seed=1");
    }
  }
  if (shape.size < kPageSize || shape.size.value() % kPageBytes != 0) {
    throw Error(ErrorKind::kUsage, "--synthetic", "the size must be a multiple of 4 KiB, and not 0");
  }
  return shape;
}

SaveOptions MakeSaveOptions(const Options& options, const Transfer& transfer) {
  SaveOptions save;
  save.path = options.image;
  const int version = options.image_version.value_or(transfer.configuration.save_image_version.value_or(2));
  save.version = version == 3 ? ImageVersion::k3 : ImageVersion::k2;
  if (options.no_checksums && version != 3) {
    throw Error(ErrorKind::kUsage, "--no-checksums", "a version 2 image has none", "it goes with --image-version 3");
  }
  save.replace = options.force ? Replace::kYes : Replace::kNo;
  save.cache = transfer.cache;
  save.write = {transfer.channels, transfer.engine, !options.no_checksums};
  if (options.description) save.description = ReadDescriptionFile(*options.description);
  if (options.running) save.record_running = true;
  if (options.paused) save.record_running = false;
  if (options.after == "pause") save.after = AfterSave::kPause;
  if (options.after == "resume") save.after = AfterSave::kResume;
  return save;
}

SaveSummary Save(const Options& options, const SaveOptions& save, Progress& progress, const Interrupt& interrupt) {
  if (options.synthetic) {
    progress.Begin("making the guest", ByteCount{0});
    const SyntheticGuest guest(ParseShape(*options.synthetic));
    return SaveImage(guest.image(), "synthetic", save, progress, interrupt);
  }
  QmpClient qmp(*options.qmp, interrupt);
  return SaveGuest(qmp, save, progress, interrupt);
}

nlohmann::json AsJson(const SaveSummary& summary, const std::string& image) {
  return {{"guest", summary.guest},
          {"image", image},
          {"ram_bytes", summary.totals.ram.value()},
          {"written_bytes", summary.totals.present.value()},
          {"zero_bytes", summary.totals.zero.value()},
          {"file_length", summary.totals.file_length.value()},
          {"seconds", summary.elapsed.count()},
          {"paused_seconds", summary.paused.count()}};
}

std::string AsText(const SaveSummary& summary) {
  const WriteTotals& totals = summary.totals;
  return fmt::format("saved {}: {} RAM, {} written, {} zero, {} ({}), guest paused {}", summary.guest,
                     FormatBytes(totals.ram), FormatBytes(totals.present), FormatBytes(totals.zero),
                     FormatSeconds(summary.elapsed.count()), FormatRate(totals.present, summary.elapsed.count()),
                     FormatSeconds(summary.paused.count()));
}

int Main(int argc, char** argv) {
  Options options;
  const auto app = MakeApp("vmsave", "Saves a running QEMU/KVM guest to disk.");
  AddOptions(*app, options);
  if (const auto status = ParseOptions(*app, argc, argv)) return *status;
  const Interrupt interrupt = Interrupt::FromSignals();
  const Transfer transfer = ResolveTransfer("vmsave", options.transfer);
  const SaveOptions save = MakeSaveOptions(options, transfer);
  Progress progress;
  std::optional<SaveSummary> summary;
  ShowProgress(progress, transfer.progress, [&] {
    summary = Save(options, save, progress, interrupt);
    return AsJson(*summary, options.image);
  });
  if (transfer.progress != ProgressStyle::kJson) PrintLine(stdout, AsText(*summary));
  return 0;
}

}  // namespace
}  // namespace vmsave

int main(int argc, char** argv) {
  return vmsave::RunProgram("vmsave", [&] { return vmsave::Main(argc, argv); });
}
