// What the test guest prints on its serial port (tests/guest/README.md).
#pragma once

#include <filesystem>
#include <string>

namespace vmsave {

// Reads the log of one guest, which may go on in another QEMU that appends to the same file.
class Console {
 public:
  explicit Console(std::filesystem::path log) : log_(std::move(log)) {}

  // The numbers of the first and the last tick, 0 where there is none.
  unsigned FirstTick() const;
  unsigned LastTick() const;

  // Each waits for something new and throws std::runtime_error, with the log's end, where it does not come.
  void WaitForTicks(unsigned count) const;
  // All of RAM is checked between this call and its return.
  void WaitForWholePass() const;

  // Whole lines only.
  std::string Text() const;

  // Empty where the ticks go `first_tick`, + 1, + 2... without a gap or a repetition and the guest found its memory
  // right at each; else the first line that does not belong there.
  std::string FirstFlaw(unsigned first_tick = 1) const;

 private:
  unsigned CountPasses() const;
  template <class Condition>
  void Wait(const std::string& what, const Condition& condition) const;

  std::filesystem::path log_;
};

}  // namespace vmsave
