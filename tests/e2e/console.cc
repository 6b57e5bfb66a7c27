#include "tests/e2e/console.h"

#include <fmt/format.h>

#include <fstream>
#include <iterator>
#include <optional>
#include <sstream>

#include "tests/e2e/program_run.h"

namespace vmsave {
namespace {

constexpr std::size_t kShownOnFailure = 600;

// N of "tick N ...".
std::optional<unsigned> TickNumber(const std::string& line) {
  std::istringstream words(line);
  std::string word;
  unsigned number = 0;
  if (words >> word >> number && word == "tick") return number;
  return std::nullopt;
}

}  // namespace

std::string Console::Text() const {
  std::ifstream file(log_, std::ios::binary);
  std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  text.resize(text.rfind('\n') + 1);
  return text;
}

unsigned Console::FirstTick() const {
  std::istringstream lines(Text());
  for (std::string line; std::getline(lines, line);) {
    if (const std::optional<unsigned> tick = TickNumber(line)) return *tick;
  }
  return 0;
}

unsigned Console::LastTick() const {
  std::istringstream lines(Text());
  unsigned last = 0;
  for (std::string line; std::getline(lines, line);) last = TickNumber(line).value_or(last);
  return last;
}

unsigned Console::CountPasses() const {
  std::istringstream lines(Text());
  unsigned count = 0;
  for (std::string line; std::getline(lines, line);) count += line.starts_with("pass ") ? 1 : 0;
  return count;
}

template <class Condition>
void Console::Wait(const std::string& what, const Condition& condition) const {
  try {
    WaitUntil(what, condition);
  } catch (const std::runtime_error& error) {
    const std::string text = Text();
    const std::size_t start = text.size() - std::min(text.size(), kShownOnFailure);
    throw std::runtime_error(fmt::format("{}\nThe guest printed: ...{}", error.what(), text.substr(start)));
  }
}

void Console::WaitForTicks(unsigned count) const {
  const unsigned wanted = LastTick() + count;
  Wait(fmt::format("tick {}", wanted), [&] { return LastTick() >= wanted; });
}

void Console::WaitForWholePass() const {
  // The first pass to end may have begun before.
  const unsigned wanted = CountPasses() + 2;
  Wait("two passes", [&] { return CountPasses() >= wanted; });
}

std::string Console::FirstFlaw(unsigned first_tick) const {
  std::istringstream lines(Text());
  unsigned next = first_tick;
  for (std::string line; std::getline(lines, line);) {
    const std::optional<unsigned> tick = TickNumber(line);
    const bool is_right = tick ? *tick == next : line.find("tick") == std::string::npos;
    if (!is_right || ((tick || line.starts_with("pass ")) && !line.ends_with(" ok"))) return line;
    if (tick) ++next;
  }
  return next == first_tick ? "no tick at all" : "";
}

}  // namespace vmsave
