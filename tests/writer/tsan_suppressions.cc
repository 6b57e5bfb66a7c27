// Rings are mapped and unmapped by liburing with system calls of its own, which ThreadSanitizer does not see: a new
// ring at the address of one that another thread had before looks like a race between the two.
#if defined(__SANITIZE_THREAD__)
extern "C" const char* __tsan_default_suppressions();
extern "C" const char* __tsan_default_suppressions() {
  return "race:^io_uring_\n";
}
#endif
