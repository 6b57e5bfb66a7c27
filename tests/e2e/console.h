// What the test guest prints on its serial port (tests/guest/README.md).
#pragma once

#include <filesystem>
#include <string>

namespace vmsave {

// Reads the log of one guest, which may go on in another QEMU that appends to the same file.
class Console {
 public:
  explicit Console(std::filesystem::path log) : log_(std::move(log)) {}

  // The number of the last tick, 0 before the first.
  unsigned LastTick() const;

  // Each waits for something new and throws std::runtime_error, with the log's end, where it does not come.
  void WaitForTicks(unsigned count) const;
  // All of RAM is checked between this call and its return.
  void WaitForWholePass() const;

  // Whole lines only.
  std::string Text() const;

  // Empty where the ticks go 1, 2, 3... without a gap or a repetition and the guest found its memory right at each;
  // else the first line that does not belong there.
  std::string FirstFlaw() const;

 private:
  unsigned CountPasses() const;
  template <class Condition>
  void Wait(const std::string& what, const Condition& condition) const;

  std::filesystem::path log_;
};

}  // namespace vmsave
