#include "writer/write_options.h"

namespace vmsave {

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
