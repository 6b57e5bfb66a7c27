#include "reader/image_identity.h"

#include "format/bytes.h"
#include "format/page_hash.h"

namespace vmsave {

std::uint64_t ImageIdentity(const Image& image) {
  const StreamContents& contents = image.contents();
  Xxh3Stream hash;
  const auto add = [&hash](std::string_view text) {
    ByteWriter out;
    out.AppendLittleEndian<std::uint64_t>(text.size());
    out.Append(text);
    hash.Update(out.Take());
  };
  add(contents.frame.machine);
  for (const StreamBlock& block : contents.blocks) {
    add(block.name);
    hash.Update(block.present.Encode());
  }
  hash.Update(image.device_state());
  return hash.Finish();
}

}  // namespace vmsave
