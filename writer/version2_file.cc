#include "writer/version2_file.h"

namespace vmsave {

std::vector<std::byte> EncodeBeforeStream(std::string_view description, bool was_running, BodyFormat format) {
  std::vector<std::byte> bytes = EncodeDescription(description);
  SaveHeader header;
  header.version = 2;
  header.data_length = static_cast<std::uint32_t>(bytes.size());
  header.was_running = was_running;
  header.format = format;
  const auto encoded = EncodeSaveHeader(header);
  bytes.insert(bytes.begin(), encoded.begin(), encoded.end());
  return bytes;
}

}  // namespace vmsave
