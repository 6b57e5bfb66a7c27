#include "options.h"

#include <stddef.h>

#include "serial.h"

namespace {

struct NumberOption {
  const char* name;
  uint32_t Options::*member;
  uint32_t least;
  uint32_t most;
};

constexpr NumberOption kNumberOptions[] = {
    {"fill=", &Options::fill, 0, 100},       {"seed=", &Options::seed, 0, UINT32_MAX},
    {"tick=", &Options::tick, 1, 60000},     {"passes=", &Options::passes, 1, 1000},
    {"dirty=", &Options::dirty, 0, 1 << 20}, {"rezero=", &Options::rezero, 0, 1 << 20},
};

bool IsSpace(char c) {
  return c == ' ' || c == '\t' || c == '\n';
}

// The next word of *line, of size 0 at the end; moves *line past it.
Text NextWord(const char** line) {
  while (IsSpace(**line)) ++*line;
  const char* begin = *line;
  while (**line != '\0' && !IsSpace(**line)) ++*line;
  return {begin, static_cast<size_t>(*line - begin)};
}

// Removes `prefix` from the front of *word if it is there.
bool Consume(Text* word, const char* prefix) {
  size_t size = 0;
  for (; prefix[size] != '\0'; ++size) {
    if (size == word->size || word->data[size] != prefix[size]) return false;
  }
  *word = {word->data + size, word->size - size};
  return true;
}

bool ParseNumber(Text digits, uint32_t* number) {
  uint32_t value = 0;
  for (size_t i = 0; i < digits.size; ++i) {
    const auto digit = static_cast<uint32_t>(digits.data[i] - '0');
    if (digit > 9 || value > (UINT32_MAX - digit) / 10) return false;
    value = value * 10 + digit;
  }
  *number = value;
  return digits.size > 0;
}

bool ParseCheck(Text value, Options* options) {
  const bool all = Consume(&value, "all");
  if (!all && !Consume(&value, "filled")) return false;
  options->check_unfilled = all;
  return value.size == 0;
}

bool ParseWord(Text word, Options* options) {
  if (Consume(&word, "check=")) return ParseCheck(word, options);
  for (const NumberOption& option : kNumberOptions) {
    if (!Consume(&word, option.name)) continue;
    uint32_t number = 0;
    if (!ParseNumber(word, &number) || number < option.least || number > option.most) return false;
    options->*option.member = number;
    return true;
  }
  return false;
}

}  // namespace

Options ParseOptions(const char* command_line) {
  Options options;
  NextWord(&command_line);
  for (Text word = NextWord(&command_line); word.size > 0; word = NextWord(&command_line)) {
    if (!ParseWord(word, &options)) Print("ignored: ", word, "\n");
  }
  return options;
}
