// The commands of vmimage: one file of the folder for each.
#pragma once

#include <memory>
#include <string>

#include "cli/program.h"
#include "io/interrupt.h"

namespace vmsave {

inline constexpr int kExitDamaged = 3;

// Lives as long as the App that it has added itself to: its options are kept in it.
class ImageCommand {
 public:
  explicit ImageCommand(CLI::App& command) : command_(command) {}
  virtual ~ImageCommand() = default;
  ImageCommand(const ImageCommand&) = delete;
  ImageCommand& operator=(const ImageCommand&) = delete;

  // Whether the command line names it.
  bool chosen() const { return command_.parsed(); }

  // Returns the exit status; throws Error. REQUIRES: the options have been parsed.
  virtual int Run(const Interrupt& interrupt) = 0;

 protected:
  const CLI::App& command() const { return command_; }

 private:
  const CLI::App& command_;
};

std::unique_ptr<ImageCommand> AddConvert(CLI::App& app);
std::unique_ptr<ImageCommand> AddExtract(CLI::App& app);
std::unique_ptr<ImageCommand> AddInfo(CLI::App& app);
std::unique_ptr<ImageCommand> AddVerify(CLI::App& app);
std::unique_ptr<ImageCommand> AddDumpXml(CLI::App& app);
std::unique_ptr<ImageCommand> AddSetXml(CLI::App& app);
std::unique_ptr<ImageCommand> AddEdit(CLI::App& app);

}  // namespace vmsave
