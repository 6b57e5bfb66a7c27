// Where the inputs go that a fuzz target starts from.
#pragma once

#include <filesystem>
#include <fstream>
#include <span>
#include <stdexcept>
#include <string>

namespace vmsave {

// The seeds of one target.
class SeedDirectory {
 public:
  SeedDirectory(const std::filesystem::path& parent, const std::string& target) : path_(parent / target) {
    std::filesystem::create_directories(path_);
  }

  // `choice`: the input's first byte.
  void Add(const std::string& name, char choice, std::span<const std::byte> bytes) const {
    std::string input(1, choice);
    input.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    AddText(name, input);
  }

  void AddText(const std::string& name, const std::string& input) const {
    std::ofstream file(path_ / name, std::ios::binary);
    file.write(input.data(), static_cast<std::streamsize>(input.size()));
    if (!file.flush()) throw std::runtime_error("cannot write " + (path_ / name).string());
  }

 private:
  std::filesystem::path path_;
};

}  // namespace vmsave
