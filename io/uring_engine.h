// The engine that keeps many transfers in flight at once: io_uring(7), Linux 5.6 or later.
#pragma once

#include <liburing.h>

#include <array>
#include <string>
#include <vector>

#include "io/io_engine.h"

namespace vmsave {

class UringEngine final : public IoEngine {
 public:
  // Throws Error{kFailed} where the kernel has no io_uring or refuses it to this process.
  explicit UringEngine(unsigned depth);
  ~UringEngine() override;

  EngineKind kind() const override { return EngineKind::kUring; }

  // Why this process cannot use io_uring, as of now; empty where it can.
  static std::string ReasonAgainst();

 private:
  // Descriptors that the ring holds open itself, which saves the kernel a look-up of the descriptor in each request.
  // An entry counts only while one of our transfers uses it: up to the last of them the caller keeps the descriptor
  // open, so that its number means that file. Later the number may belong to another file.
  struct RegisteredFile {
    int number = -1;
    unsigned transfers = 0;
  };
  static constexpr unsigned kRegisteredFiles = 4;
  static constexpr unsigned kNotRegistered = kRegisteredFiles;

  void Start(const Transfer& transfer) override;
  Completion WaitForOne() override;

  io_uring_sqe* PrepareEntry(const Transfer& transfer);
  // The entry of the table for `number`, its count raised; kNotRegistered where there is none to be had.
  unsigned AcquireRegistered(int number);
  void ReleaseRegistered(unsigned slot);
  void WaitUntilKernelIsDone() noexcept;

  io_uring ring_{};
  unsigned owed_ = 0;  // entries put into the ring whose completions have not been taken out of it
  bool has_file_table_ = false;
  std::array<RegisteredFile, kRegisteredFiles> registered_files_;
  std::vector<unsigned> registered_of_slot_;
};

}  // namespace vmsave
