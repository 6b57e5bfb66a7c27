// The one error type of vmsave: what failed and on what, why, and what the operator can do about it.
#pragma once

#include <cstddef>
#include <stdexcept>
#include <string>
#include <string_view>

namespace vmsave {

enum class ErrorKind {
  kFailed,       // the operation failed: I/O, a guest that refuses, a missing file     exit status 1
  kUsage,        // the command or the configuration is wrong                            exit status 2
  kDamaged,      // an image is damaged, or of a kind that is refused                    exit status 3
  kInterrupted,  // the operator stopped it (Ctrl-C, SIGTERM)                            exit status 130
};

// what() is Printable() and reads "WHAT_FAILED: WHY" or "WHAT_FAILED: WHY (ADVICE)", e.g.
//   cannot write /srv/saves/vm1.sav at 12 MiB: No space left on device (free some space, or choose another directory)
class Error : public std::runtime_error {
 public:
  Error(ErrorKind kind, std::string_view what_failed, std::string_view why, std::string_view advice = "");

  // The reason is the text of errno value `error_number`.
  static Error FromErrno(std::string_view what_failed, int error_number, std::string_view advice = "");

  ErrorKind kind() const { return kind_; }

  // WHY by itself; a part of what().
  std::string_view why() const { return std::string_view(what()).substr(why_offset_, why_length_); }

 private:
  ErrorKind kind_;
  std::size_t why_offset_;
  std::size_t why_length_;
};

}  // namespace vmsave
