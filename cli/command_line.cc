#include "cli/command_line.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <span>

namespace vmsave {
namespace {

constexpr std::size_t kHelpColumns = 80;
constexpr const char* kOptionalGroup = "optional";  // CLI11 wants a value for every positional argument in turn
constexpr std::string_view kExitStatus =
    "Exit status: 0 done, 1 failed, 2 wrong usage, 3 damaged or refused image, 130 interrupted.";

// `text` in lines that end before the last column of a terminal; all but the first are indented.
std::string Wrap(std::string_view text, std::size_t indent) {
  std::string wrapped;
  std::size_t column = indent;
  while (!text.empty()) {
    const std::string_view word = text.substr(0, text.find(' '));
    text.remove_prefix(std::min(text.size(), word.size() + 1));
    if (column > indent && column + 1 + word.size() >= kHelpColumns) {
      wrapped += fmt::format("\n{:{}}", "", indent);
      column = indent;
    } else if (column > indent) {
      wrapped += ' ';
      ++column;
    }
    wrapped += word;
    column += word.size();
  }
  return wrapped + "\n";
}

struct Entry {
  std::string name;
  std::string meaning;
};

std::string Table(std::string_view title, const std::vector<Entry>& entries) {
  if (entries.empty()) return "";
  std::size_t name_width = 0;
  for (const Entry& entry : entries) name_width = std::max(name_width, entry.name.size());
  std::string table = fmt::format("\n{}\n", title);
  for (const Entry& entry : entries) {
    table += fmt::format("  {:<{}}  {}", entry.name, name_width, Wrap(entry.meaning, name_width + 4));
  }
  return table;
}

// Where CLI11 shows what a flag stands for that may also be given a value behind a "=".
std::size_t FindFlagValue(std::string_view names) {
  return names.find('{');
}

std::string NamesOf(const CLI::Option& option) {
  return option.get_name(/*positional=*/false, /*all_options=*/true);
}

Entry EntryOf(const CLI::Option& option) {
  std::string names = NamesOf(option);
  if (const std::size_t brace = FindFlagValue(names); brace != std::string::npos) {
    return {names.substr(0, brace) + option.get_type_name(), option.get_description()};
  }
  if (const std::size_t comma = names.find(','); comma != std::string::npos) names.insert(comma + 1, " ");
  if (option.get_type_size() > 0) names += " " + option.get_type_name();
  return {names, option.get_description()};
}

// In the order in which they were added, but --help and --version, which CLI11 has first, last.
std::vector<Entry> OptionsOf(const CLI::App& app) {
  std::vector<Entry> entries;
  std::vector<Entry> of_every_program;
  for (const CLI::Option* option : app.get_options()) {
    if (option->get_positional()) continue;
    const bool is_general = option == app.get_help_ptr() || option == app.get_version_ptr();
    (is_general ? of_every_program : entries).push_back(EntryOf(*option));
  }
  entries.insert(entries.end(), of_every_program.begin(), of_every_program.end());
  return entries;
}

class HelpFormatter : public CLI::FormatterBase {
 public:
  explicit HelpFormatter(std::vector<std::string> usage) : usage_(std::move(usage)) {}

  std::string make_help(const CLI::App* app, std::string name, CLI::AppFormatMode /*mode*/) const override {
    std::string help;
    for (const std::string& line : usage_)
      help += fmt::format("{}{} {}\n", help.empty() ? "Usage: " : "       ", name, line);
    help += "\n" + Wrap(app->get_description(), 0);
    std::vector<Entry> commands;
    for (const CLI::App* command : app->get_subcommands({})) {
      commands.push_back({command->get_name(), command->get_description()});
    }
    return help + Table("Commands:", commands) + Table("Options:", OptionsOf(*app)) + "\n" + Wrap(kExitStatus, 0);
  }

 private:
  std::vector<std::string> usage_;
};

// CLI11 begins what it says with the option's name; without its dashes where a flag was given a value.
UsageError TranslateError(const CLI::ParseError& error) {
  const std::string_view text = error.what();
  const std::string_view option = text.substr(0, text.find_first_of(": "));
  if (error.get_exit_code() == static_cast<int>(CLI::ExitCodes::ArgumentMismatch) && !option.starts_with('-')) {
    return {fmt::format("--{}", option), "it takes no value"};
  }
  if (error.get_exit_code() == static_cast<int>(CLI::ExitCodes::ValidationError)) {
    return {option, text.substr(std::min(text.size(), option.size() + 2))};
  }
  return {option, "its value is missing"};
}

const CLI::App& ChosenCommand(const CLI::App& app) {
  const std::vector<const CLI::App*> chosen =
      app.get_subcommands([](const CLI::App* command) { return command->parsed(); });
  return chosen.empty() ? app : *chosen.front();
}

// Of "--live snapshot", where the second word is taken for a positional argument.
std::string AdviceOnFlagValue(CLI::App& app, std::span<const char* const> words) {
  for (std::size_t i = 1; i < words.size(); ++i) {
    const std::string flag = words[i - 1];
    CLI::Option* option = app.get_option_no_throw(flag);
    if (option == nullptr || FindFlagValue(NamesOf(*option)) == std::string::npos) continue;
    const std::string value = words[i];
    if ((*option->get_validator(0))(value).empty()) return fmt::format("did you mean {}={}?", flag, value);
  }
  return "";
}

void RefuseExtras(const CLI::App& app, std::string_view stray, std::string_view advice = "") {
  std::vector<std::string> extras = app.remaining(/*recurse=*/true);
  std::erase(extras, "--");  // CLI11 leaves it there
  if (extras.empty()) return;
  const std::string& extra = extras.front();
  if (extra.starts_with('-')) throw UsageError("unknown option", extra);
  throw UsageError(stray, extra, advice);
}

void RequireCommand(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::App* command : app.get_subcommands({})) names.push_back(command->get_name());
  if (names.empty() || !app.get_subcommands().empty()) return;
  RefuseExtras(app, "unknown command");
  throw UsageError("no command is given", fmt::format("it is one of {}", fmt::join(names, ", ")));
}

void RequirePositionals(const CLI::App& app) {
  for (const CLI::Option* option : app.get_options()) {
    if (option->get_positional() && option->empty() && option->get_group() != kOptionalGroup) {
      throw UsageError(fmt::format("{} is missing", option->get_name()), option->get_description());
    }
  }
}

}  // namespace

std::unique_ptr<CLI::App> MakeApp(const std::string& program, const std::string& purpose,
                                  const std::vector<std::string>& usage) {
  auto app = std::make_unique<CLI::App>(purpose, program);
  app->formatter(std::make_shared<HelpFormatter>(usage));
  app->set_help_flag("-h,--help", "Print this and exit");
  app->set_version_flag("--version", fmt::format("{} {}", program, VMSAVE_VERSION), "Print the version and exit");
  app->allow_extras();  // they are refused in our words
  app->option_defaults()->multi_option_policy(CLI::MultiOptionPolicy::TakeLast)->disable_flag_override();
  return app;
}

CLI::App* AddCommand(CLI::App& app, const std::string& command, const std::string& purpose, const std::string& usage) {
  CLI::App* added = app.add_subcommand(command, purpose);
  added->formatter(std::make_shared<HelpFormatter>(std::vector{usage}));
  app.require_subcommand(0, 1);
  return added;
}

void MakeOptional(CLI::Option& positional) {
  positional.group(kOptionalGroup);
}

bool ParseOptions(CLI::App& app, int argc, const char* const* argv, std::string_view stray) {
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& asked) {
    app.exit(asked);
    return false;
  } catch (const CLI::ParseError& error) {
    throw TranslateError(error);
  }
  RequireCommand(app);
  RefuseExtras(app, stray, AdviceOnFlagValue(app, std::span(argv, static_cast<std::size_t>(argc))));
  RequirePositionals(ChosenCommand(app));
  return true;
}

CLI::Validator OneOf(std::vector<std::string> words) {
  const auto check = [words = std::move(words)](const std::string& value) -> std::string {
    if (std::ranges::find(words, value) != words.end()) return "";
    return fmt::format("\"{}\" is none of {}", value, fmt::join(words, ", "));
  };
  return {check, ""};
}

CLI::Validator NumberWithin(unsigned low, unsigned high) {
  const auto check = [low, high](const std::string& value) -> std::string {
    unsigned number = 0;
    const char* const end = value.data() + value.size();
    const auto [stop, error] = std::from_chars(value.data(), end, number);
    if (error == std::errc() && stop == end && number >= low && number <= high) return "";
    return fmt::format("\"{}\" is no number from {} to {}", value, low, high);
  };
  return {check, ""};
}

void RefuseTogether(const CLI::App& app, std::initializer_list<std::string> options) {
  std::vector<std::string> given;
  std::ranges::copy_if(options, std::back_inserter(given),
                       [&app](const std::string& name) { return app.count(name) > 0; });
  if (given.size() > 1) throw UsageError(fmt::format("{}", fmt::join(given, " and ")), "only one of them can be given");
}

}  // namespace vmsave
