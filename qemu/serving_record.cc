#include "qemu/serving_record.h"

#include <filesystem>

#include "reader/image_identity.h"

namespace vmsave {

ServingRecord MakeServingRecord(const Image& image, const ServeOptions& serve, const LazyBegin& begin,
                                const QmpClient& qmp) {
  ServingRecord record{.image = std::filesystem::absolute(image.path()).string(),
                       .run = begin.run,
                       .channels = serve.read.channels,
                       .uring = serve.read.engine == EngineKind::kUring,
                       .bypass_cache = serve.read.cache == CacheUse::kBypass,
                       .check_pages = serve.checks == PageChecks::kOn,
                       .fill = serve.fill.on,
                       .fill_rate = serve.fill.rate.value_or(ByteCount{0}).value(),
                       .image_identity = ImageIdentity(image),
                       .out_of_band = qmp.executes_out_of_band()};
  for (const PostcopyBlock& block : begin.blocks) record.host_pages.push_back(block.host_page.value());
  return record;
}

LazyOptions OptionsOf(const ServingRecord& record) {
  LazyOptions options;
  options.serve.read = {record.channels, record.uring ? EngineKind::kUring : EngineKind::kSync,
                        record.bypass_cache ? CacheUse::kBypass : CacheUse::kPageCache};
  options.serve.checks = record.check_pages ? PageChecks::kOn : PageChecks::kOff;
  options.serve.fill.on = record.fill;
  if (record.fill_rate != 0) options.serve.fill.rate = ByteCount{record.fill_rate};
  options.run = record.run;
  return options;
}

std::vector<PostcopyBlock> BlocksOf(const ServingRecord& record, const Image& image) {
  std::vector<PostcopyBlock> blocks;
  for (const StreamBlock& block : image.contents().blocks) {
    blocks.push_back({block.name, block.length, ByteCount{record.host_pages.at(blocks.size())}});
  }
  return blocks;
}

}  // namespace vmsave
