// A guest that runs, or is to, whose vmrestore has ended before all of its memory was there.
#pragma once

#include <functional>
#include <string>

#include "qemu/kept_serving.h"

namespace vmsave {

// Of the guard's process.
class UnservedGuest {
 public:
  explicit UnservedGuest(KeptServing kept) : kept_(std::move(kept)) {}

  // Whether QEMU can be reached.
  bool is_held() const { return kept_.qmp.valid(); }

  // Where vmrestore was killed while it took the guest over from another guard. Whether that has come about,
  // KeptListener finds out.
  void FinishTaking();

  // Whether its QEMU has closed the connection.
  bool has_ended() const;

  // REQUIRES: is_held(). Serves it until it has all of its memory, or has ended; `on_served` is called once it runs
  // again, or stands paused, as it is to. Returns what became of it, for the operator. What held QEMU is let go, unless
  // needs_operator() afterwards.
  std::string ServeOn(const std::function<void()>& on_served);

  // It stands still as soon as it needs a page.
  bool needs_operator() const { return is_held(); }

  // Keeps what vmrestore --recover needs, for as long as QEMU is there.
  KeptEnd Keep(KeptListener& listener, const std::function<void()>& on_listening) const {
    return listener.KeepUntilTaken(kept_, on_listening);
  }

 private:
  std::string TellFailure(const std::string& why) const;

  KeptServing kept_;
};

}  // namespace vmsave
