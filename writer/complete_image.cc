#include "writer/complete_image.h"

#include "format/save_header.h"

namespace vmsave {

void CompleteImage(const NewFile& file, Progress& progress) {
  progress.Begin("syncing", ByteCount{0});
  file.Sync();
  WriteAt(file.buffered(), EncodeSaveMagic(ImageState::kComplete), FileOffset{0});
  file.Sync();
}

}  // namespace vmsave
