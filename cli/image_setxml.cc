// vmimage setxml: another description in place of an image's own.
#include <fmt/format.h>

#include "cli/description_change.h"
#include "cli/image_commands.h"
#include "convert/description_edit.h"

namespace vmsave {
namespace {

class SetXmlCommand final : public ImageCommand {
 public:
  explicit SetXmlCommand(CLI::App& command) : ImageCommand(command) {
    command.add_option("IMAGE", image_, "the image to change");
    command.add_option("FILE", file_, "the new description; - is standard input");
  }

  int Run(const Interrupt& interrupt) override {
    const std::string source = file_ == "-" ? "standard input" : file_;
    const std::string text = ReadText(file_, interrupt);
    DescriptionEdit edit(image_);
    CheckDescriptionChange(edit.description(), text, source);
    fmt::print("{}: {}\n", image_, edit.Replace(text, source) ? "description changed" : "not changed");
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
