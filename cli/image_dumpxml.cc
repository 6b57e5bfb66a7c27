// vmimage dumpxml: the description of an image.
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

#include "cli/image_commands.h"
#include "format/printable.h"
#include "reader/image_head.h"

namespace vmsave {
namespace {

ImageHead ReadHead(const std::string& path) {
  std::optional<ImageHead> head = ReadImageHead(OpenImageFile(path, O_RDONLY));
  if (!head) {
    throw Error(ErrorKind::kDamaged, fmt::format("cannot use {}", path),
                "it is no save image, so it has no description");
  }
  return std::move(*head);
}

// Line by line, so that there still are lines.
std::string PrintableLines(std::string_view text) {
  std::string out;
  for (auto end = text.find('\n'); end != std::string_view::npos; end = text.find('\n')) {
    out += Printable(text.substr(0, end)) + "\n";
    text.remove_prefix(end + 1);
  }
  return out + Printable(text);
}

void Print(const std::string& text) {
  if (std::fwrite(text.data(), 1, text.size(), stdout) == text.size() && std::fflush(stdout) == 0) return;
  throw Error::FromErrno("cannot write to standard output", errno);
}

class DumpXmlCommand final : public ImageCommand {
 public:
  explicit DumpXmlCommand(CLI::App& command) : ImageCommand(command) {
    command.add_option("IMAGE", image_, "the image whose description to print");
  }

  int Run(const Interrupt& /*interrupt*/) override {
    const ImageHead head = ReadHead(image_);
    const std::string text = DecodeDescription(std::span(head.before_stream).subspan(kSaveHeaderBytes), image_);
    Print(::isatty(STDOUT_FILENO) != 0 ? PrintableLines(text) : text);
    if (FitsHeaderHash(head.before_stream, head.header)) return 0;
    PrintLine(stderr, fmt::format("vmimage: {} is damaged: header or description: wrong checksum", image_));
    return kExitDamaged;
  }

 private:
  std::string image_;
};

}  // namespace

std::unique_ptr<ImageCommand> AddDumpXml(CLI::App& app) {
  return std::make_unique<DumpXmlCommand>(
      *AddCommand(app, "dumpxml", "Prints the description, libvirt's domain XML", "IMAGE"));
}

}  // namespace vmsave
