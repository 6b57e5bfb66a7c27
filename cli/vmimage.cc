// vmimage: looks into save images, and changes their description.
#include <algorithm>
#include <vector>

#include "cli/image_commands.h"

namespace vmsave {
namespace {

int Main(int argc, char** argv) {
  const auto app =
      MakeApp("vmimage", "Looks into save images, checks them, makes them into others, and edits their description.",
              {"info [OPTIONS] IMAGE", "verify [OPTIONS] IMAGE", "convert [OPTIONS] --to KIND IMAGE TARGET",
               "extract [OPTIONS] --block NAME --output FILE|--elf FILE IMAGE", "dumpxml IMAGE", "setxml IMAGE FILE",
               "edit IMAGE"});
  std::vector<std::unique_ptr<ImageCommand>> commands;
  for (const auto add : {AddInfo, AddVerify, AddConvert, AddExtract, AddDumpXml, AddSetXml, AddEdit}) {
    commands.push_back(add(*app));
  }
  if (!ParseOptions(*app, argc, argv)) return 0;
  const Interrupt interrupt = Interrupt::FromSignals();
  return (*std::ranges::find_if(commands, [](const auto& command) { return command->chosen(); }))->Run(interrupt);
}

}  // namespace
}  // namespace vmsave

int main(int argc, char** argv) {
  return vmsave::RunProgram("vmimage", [&] { return vmsave::Main(argc, argv); });
}
