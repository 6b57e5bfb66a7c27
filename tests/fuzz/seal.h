// Checksums are no obstacle to who damages an image on purpose, but to a fuzzer they are.
#pragma once

#include <span>

namespace vmsave {

// Makes right those of an image's edit note, edit record, header and integrity table, as far as they lie in it; those
// of pages are left as they are.
void SealImage(std::span<std::byte> image);

}  // namespace vmsave
