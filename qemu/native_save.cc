// QEMU writes the guest's RAM into the file itself, at fixed offsets.
#include <fcntl.h>
#include <fmt/format.h>

#include "format/multifd_packet.h"
#include "qemu/descriptor_set.h"
#include "qemu/save_job.h"
#include "reader/file_source.h"
#include "writer/complete_image.h"
#include "writer/fixed_offset_file.h"
#include "writer/stream_hash.h"

namespace vmsave {
namespace {

// The file once more, as QEMU wants it: for writing only.
FileDescriptor ForWriting(const FileDescriptor& file, int flags) {
  return OpenFile(fmt::format("/proc/self/fd/{}", file.number()), O_WRONLY | flags);
}

// What QEMU has written, read back.
struct ReadBackStream {
  StreamContents contents;
  std::vector<std::byte> device_state;
  FileOffset end;
};

ReadBackStream ReadBack(const NewFile& file, FileOffset start, ByteCount most_ram) {
  const FileOffset end{FileLength(file.buffered()).value()};
  FileSource source(file.buffered(), start, end);
  PassOverPages no_pages;
  StreamContents contents = ReadStreamUpToDevices(source, no_pages, {.most_ram = most_ram});
  return {std::move(contents), ReadDeviceState(source), end};
}

void LetQemuWrite(SaveJob& job, FileOffset start) {
  DescriptorSet descriptors(job.qmp, OnFailure::kPutBack,
                            job.guard);  // outlives the migration, which may open one at any time
  descriptors.Add(ForWriting(job.file.buffered(), 0));
  if (job.file.bypasses_cache()) descriptors.Add(ForWriting(job.file.buffered(), O_DIRECT));
  OutgoingMigration migration(job.qmp, {std::string(kMappedRamCapability), "multifd"}, job.limits, job.guest,
                              job.guard);
  migration.settings().SetParameter("multifd-channels", std::min(job.write.channels, kMaxMultifdChannels));
  // QEMU's channels sort zero pages out of their packets and write what is left out of order, page by page.
  migration.settings().SetParameterIfKnown("zero-page-detection", "legacy");
  migration.settings().SetParameter("direct-io", job.file.bypasses_cache());
  migration.Start(fmt::format("file:{},offset={}", descriptors.path(), start.value()),
                  fmt::format("QEMU cannot write {}", job.file.path()));
  job.progress.Begin("saving", ByteCount{0});
  migration.Follow(
      [&] {
        job.interrupt.Check();
        return true;
      },
      job.progress);
}

}  // namespace

WriteTotals SaveByQemu(SaveJob& job) {
  FixedOffsetEnvelope envelope(job.file, job.description, job.was_running, Version3Kind(job.write.checksums));
  LetQemuWrite(job, envelope.stream_start());
  const ReadBackStream stream = ReadBack(job.file, envelope.stream_start(), job.most_ram);
  job.found_state(stream.device_state);
  job.release();
  std::optional<IntegrityTable> table;
  if (job.write.checksums) {
    table = HashWrittenStream(job.file.buffered(), job.file.pages(),
                              {envelope.stream_start(), stream.end, stream.contents.blocks}, job.write, job.progress,
                              job.interrupt);
  }
  const ByteCount length = envelope.Close(stream.end, table);
  CompleteImage(job.file, job.progress);
  std::vector<PageBitmap> present;
  for (const StreamBlock& block : stream.contents.blocks) present.push_back(block.present);
  return CountTotals(present, length);
}

}  // namespace vmsave
