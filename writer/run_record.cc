#include "writer/run_record.h"

#include <array>
#include <vector>

#include "format/save_header.h"

namespace vmsave {

void RecordWasRunning(const NewFile& file, bool was_running) {
  std::array<std::byte, kSaveHeaderBytes> bytes{};
  ReadAt(file.buffered(), bytes, FileOffset{0});
  SaveHeader header = DecodeSaveHeader(bytes, file.path());
  header.was_running = was_running;
  std::vector<std::byte> before_stream((header.stream_start() - FileOffset{0}).value());
  ReadAt(file.buffered(), before_stream, FileOffset{0});
  PutSaveHeader(before_stream, header);
  WriteAt(file.buffered(), std::span(before_stream).first(kSaveHeaderBytes), FileOffset{0});
}

}  // namespace vmsave
