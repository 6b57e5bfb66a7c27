// A whole image file, used as vmimage and vmrestore do.
#include "format/save_header.h"
#include "tests/fuzz/image_acts.h"
#include "tests/fuzz/memory_file.h"
#include "tests/fuzz/seal.h"
#include "tests/fuzz/sparse_input.h"

namespace vmsave {
namespace {

// lzop is a program: starting one for each input takes too long.
bool IsLzop(std::span<const std::byte> image) {
  try {
    return DecodeSaveHeader(image.first<kSaveHeaderBytes>(), "fuzz").format == BodyFormat::kLzop;
  } catch (const Error&) {
    return false;
  }
}

}  // namespace
}  // namespace vmsave

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const vmsave::FuzzInput input(data, size);
  vmsave::MemoryFile image;
  vmsave::PutSparseInput(input.bytes, image);
  if (image.length() < vmsave::ByteCount{vmsave::kSaveHeaderBytes}) return 0;
  {
    vmsave::MemoryMapping mapping = image.Map();
    if (vmsave::IsLzop(mapping.bytes())) return 0;
    if ((input.choice & 8) == 0) vmsave::SealImage(mapping.bytes());
  }
  vmsave::UseImage(image.path(), input.choice);
  return 0;
}
