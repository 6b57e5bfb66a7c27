#include "writer/complete_image.h"

#include <algorithm>

#include "format/page_bitmap.h"
#include "format/save_header.h"

namespace vmsave {

unsigned ChannelDepth(unsigned channels) {
  return std::clamp(32 / channels, 2U, 16U);
}

void CompleteImage(const NewFile& file, Progress& progress) {
  progress.Begin("syncing", ByteCount{0});
  file.Sync();
  WriteAt(file.buffered(), EncodeSaveMagic(ImageState::kComplete), FileOffset{0});
  file.Sync();
}

WriteTotals CountTotals(const std::vector<PageBitmap>& present, ByteCount file_length) {
  WriteTotals totals;
  for (const PageBitmap& bitmap : present) {
    totals.ram += PagesToBytes(PageIndex{bitmap.pages()});
    totals.present += PagesToBytes(PageIndex{bitmap.CountSet()});
  }
  totals.zero = totals.ram - totals.present;
  totals.file_length = file_length;
  return totals;
}

}  // namespace vmsave
