// The stream of a version 2 image, compressed. The first byte of an input chooses the format and what is done with it.
#include <array>

#include "format/bytes.h"
#include "format/save_header.h"
#include "tests/fuzz/image_acts.h"
#include "tests/fuzz/memory_file.h"

namespace vmsave {
namespace {

// Not lzop, which is a program: starting one for each input takes too long.
BodyFormat ChooseFormat(unsigned choice) {
  constexpr std::array kFormats{BodyFormat::kGzip, BodyFormat::kBzip2, BodyFormat::kXz, BodyFormat::kZstd};
  return kFormats[choice % kFormats.size()];
}

}  // namespace
}  // namespace vmsave

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace vmsave;
  const FuzzInput input(data, size);
  constexpr std::string_view kDescription{"<domain/>\0", 10};
  SaveHeader header;
  header.state = ImageState::kComplete;
  header.version = 2;
  header.data_length = kDescription.size();
  header.format = ChooseFormat(input.choice);
  MemoryFile image;
  image.Append(EncodeSaveHeader(header));
  image.Append(AsBytes(kDescription));
  image.Append(input.bytes);
  UseImage(image.path(), input.choice / 4U);
  return 0;
}
