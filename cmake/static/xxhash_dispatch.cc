// The choice between SSE2, AVX2 and AVX-512, which Debian's libxxhash.so makes while it runs and its archive has not:
// what the archive was compiled for, SSE2, is on every x86-64.
#if defined(__x86_64__)
#include <xxhash.h>

extern "C" {

XXH64_hash_t XXH3_64bits_dispatch(const void* input, size_t length) {
  return XXH3_64bits(input, length);
}

XXH_errorcode XXH3_64bits_update_dispatch(XXH3_state_t* state, const void* input, size_t length) {
  return XXH3_64bits_update(state, input, length);
}

}  // extern "C"
#endif
