// vmimage edit: the description of an image in the operator's editor.
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>

#include "cli/description_change.h"
#include "cli/description_file.h"
#include "cli/editor.h"
#include "cli/image_commands.h"
#include "convert/description_edit.h"
#include "format/bytes.h"
#include "format/printable.h"
#include "io/private_directory.h"

namespace vmsave {
namespace {

constexpr const char* kSource = "the editor's file";

// Where no other user can look: a description can hold passwords. Removed by the destructor, with an editor's backups.
class TextInEditor {
 public:
  explicit TextInEditor(const std::string& text) {
    WriteAt(OpenFile(path_, O_WRONLY | O_CREAT | O_EXCL, S_IRUSR | S_IWUSR), AsBytes(text), FileOffset{0});
  }

  std::string Edit(const Interrupt& interrupt) const {
    RunEditor(path_);
    return Read(interrupt);
  }

  std::string Read(const Interrupt& interrupt) const { return ReadText(OpenFile(path_, O_RDONLY), interrupt); }

 private:
  PrivateDirectory directory_;
  std::string path_ = directory_.Path("description.xml");
};

// Returns the path of a new file with the text, for the operator.
std::string Keep(const std::string& text) {
  const char* directory = std::getenv("TMPDIR");
  std::string path =
      fmt::format("{}/vmimage-XXXXXX.xml", directory != nullptr && *directory == '/' ? directory : "/tmp");
  const FileDescriptor file(::mkostemps(path.data(), 4, O_CLOEXEC), path);
  if (!file.valid()) throw Error::FromErrno(fmt::format("cannot keep the text in {}", path), errno);
  WriteAt(file, AsBytes(text), FileOffset{0});
  return path;
}

// False where there is nobody to ask.
bool WantsToEditAgain(const Error& error, const Interrupt& interrupt) {
  if (::isatty(STDIN_FILENO) == 0) return false;
  fmt::print(stderr, "vmimage: {}\nEdit it again? [Y/n] ", error.what());
  interrupt.WaitReadable(STDIN_FILENO, -1);
  std::array<char, 256> answer{};
  const ssize_t count = ::read(STDIN_FILENO, answer.data(), answer.size());
  return count > 0 && answer[0] != 'n' && answer[0] != 'N';
}

// Editors end a last line that has no end.
bool IsSame(const std::string& text, const std::string& description) {
  return text == description || text == description + "\n";
}

class EditCommand final : public ImageCommand {
 public:
  explicit EditCommand(CLI::App& command) : ImageCommand(command) {
    command.add_option("IMAGE", image_, "the image to change");
  }

  int Run(const Interrupt& interrupt) override {
    DescriptionEdit edit(image_);
    const TextInEditor file(edit.description());
    try {
      while (!Change(edit, file.Edit(interrupt), interrupt)) continue;
    } catch (const Error& error) {
      const std::string text = file.Read(Interrupt());
      if (IsSame(text, edit.description())) throw;
      throw Error(error.kind() == ErrorKind::kUsage ? ErrorKind::kFailed : error.kind(), error.what(),
                  fmt::format("the text is kept in {}", Keep(text)));
    }
    return 0;
  }

 private:
  // False where the operator wants to edit again.
  bool Change(DescriptionEdit& edit, const std::string& text, const Interrupt& interrupt) const {
    interrupt.Check();
    if (IsSame(text, edit.description())) {
      fmt::print("{}: not changed\n", Printable(image_));
      return true;
    }
    try {
      CheckDescriptionChange(edit.description(), text, kSource);
      edit.Replace(text, kSource);
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::kUsage || !WantsToEditAgain(error, interrupt)) throw;
      return false;
    }
    fmt::print("{}: description changed\n", Printable(image_));
    return true;
  }

  std::string image_;
};

}  // namespace

std::unique_ptr<ImageCommand> AddEdit(CLI::App& app) {
  return std::make_unique<EditCommand>(
      *AddCommand(app, "edit", "Edits the description, in place: with $VISUAL, $EDITOR or vi", "IMAGE"));
}

}  // namespace vmsave
