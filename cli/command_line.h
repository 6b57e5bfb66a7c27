// The command lines of the three programs: what --help prints, and what is said of a wrong one.
#pragma once

#include <CLI/CLI.hpp>
#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "format/error.h"

namespace vmsave {

// The command line is wrong. RunProgram ends what it says with "see PROGRAM --help".
class UsageError : public Error {
 public:
  UsageError(std::string_view what_failed, std::string_view why, std::string_view advice = "")
      : Error(ErrorKind::kUsage, what_failed, why, advice) {}
};

// An App with --help and --version. `usage` are the lines behind "Usage:", without the program's name. Options are
// shown in the order in which they are added: the important ones first. Whatever is positional must be given, unless
// MakeOptional says otherwise.
std::unique_ptr<CLI::App> MakeApp(const std::string& program, const std::string& purpose,
                                  const std::vector<std::string>& usage);
CLI::App* AddCommand(CLI::App& app, const std::string& command, const std::string& purpose, const std::string& usage);

// A positional argument that may be left out: the last one.
void MakeOptional(CLI::Option& positional);

// Of an option that is given more than once, the last one counts. False where --help or --version has been printed and
// the program is to end. Throws UsageError; `stray` is what is said of a positional argument too many. REQUIRES: a flag
// that may be given a value has a check of it.
bool ParseOptions(CLI::App& app, int argc, const char* const* argv, std::string_view stray = "unexpected argument");

// Values of an option, for Option::check.
CLI::Validator OneOf(std::vector<std::string> words);
CLI::Validator NumberWithin(unsigned low, unsigned high);

// Throws UsageError where more than one of these options is given.
void RefuseTogether(const CLI::App& app, std::initializer_list<std::string> options);

}  // namespace vmsave
