// vmimage setxml: another description in place of an image's own.
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>

#include "cli/description_change.h"
#include "cli/description_file.h"
#include "cli/image_commands.h"
#include "convert/description_edit.h"
#include "format/printable.h"

namespace vmsave {
namespace {

FileDescriptor Open(const std::string& path) {
  if (path != "-") return OpenFile(path, O_RDONLY);
  const int number = ::fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 0);
  if (number < 0) throw Error::FromErrno("cannot read standard input", errno);
  return {number, "standard input"};
}

class SetXmlCommand final : public ImageCommand {
 public:
  explicit SetXmlCommand(CLI::App& command) : ImageCommand(command) {
    command.add_option("IMAGE", image_, "the image to change");
    command.add_option("FILE", file_, "the new description; - is standard input");
  }

  int Run(const Interrupt& interrupt) override {
    const FileDescriptor file = Open(file_);
    const std::string text = ReadText(file, interrupt);
    DescriptionEdit edit(image_);
    CheckDescriptionChange(edit.description(), text, file.name());
    fmt::print("{}: {}\n", Printable(image_), edit.Replace(text, file.name()) ? "description changed" : "not changed");
    return 0;
  }

 private:
  std::string image_;
  std::string file_;
};

}  // namespace

std::unique_ptr<ImageCommand> AddSetXml(CLI::App& app) {
  return std::make_unique<SetXmlCommand>(*AddCommand(
      app, "setxml", "Replaces the description, in place, by that in FILE (-: standard input)", "IMAGE FILE"));
}

}  // namespace vmsave
