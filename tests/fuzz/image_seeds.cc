#include "tests/fuzz/image_seeds.h"

#include <array>

#include "convert/convert.h"
#include "format/edit_record.h"
#include "tests/format/golden.h"
#include "tests/fuzz/seed_directory.h"
#include "tests/fuzz/sparse_input.h"
#include "tests/scratch_directory.h"
#include "tests/writer/image_files.h"
#include "writer/compressor.h"
#include "writer/synthetic_guest.h"

namespace vmsave {
namespace {

constexpr char kActs = 8;  // of image_acts.h

// The same image for everything that is done with one.
void AddForAllActs(const SeedDirectory& seeds, const std::string& name, std::span<const std::byte> image) {
  const std::vector<std::byte> input = MakeSparseInput(image);
  for (char act = 0; act < kActs; ++act) seeds.Add(name + std::to_string(act), act, input);
}

std::vector<std::byte> Converted(const ScratchDirectory& scratch, const std::string& from, TargetKind to) {
  ConvertOptions options;
  options.to = to;
  const Image source(scratch.Path(from));
  NewFile target(scratch.Path("converted"), Replace::kYes, CacheUse::kPageCache);
  Progress progress;
  Convert(source, target, options, progress, Interrupt());
  target.Publish();
  return ReadWholeFile(scratch.Path("converted"));
}

std::vector<std::byte> Compressed(std::span<const std::byte> bytes, BodyFormat format) {
  std::vector<std::byte> compressed;
  const auto compressor = MakeCompressor(format, 1, [&](std::span<const std::byte> piece) {
    compressed.insert(compressed.end(), piece.begin(), piece.end());
  });
  compressor->Write(bytes);
  compressor->Finish();
  return compressed;
}

void AddCompressed(const SeedDirectory& seeds, const std::string& name, std::span<const std::byte> stream) {
  constexpr std::array kFormats{BodyFormat::kGzip, BodyFormat::kBzip2, BodyFormat::kXz, BodyFormat::kZstd};
  for (std::size_t format = 0; format < kFormats.size(); ++format) {
    const std::vector<std::byte> compressed = Compressed(stream, kFormats[format]);
    for (const char act : {char{0}, char{1}, char{5}}) {
      const char choice = static_cast<char>(act * 4 + static_cast<char>(format));
      seeds.Add(name + std::to_string(choice), choice, compressed);
    }
  }
}

// What is between a header of that version and an edit record is no stream: nobody looks at it there.
std::vector<std::byte> InterruptedEdit(std::uint32_t version) {
  constexpr std::size_t kDataLength = 100;
  SaveHeader header;
  header.state = ImageState::kComplete;
  header.version = version;
  header.data_length = kDataLength;
  if (version == 3) {
    header.format = BodyFormat::kSparse;
    header.extension.emplace().stream_end = FileOffset{kSaveHeaderBytes + kDataLength + 10};
  }
  std::vector<std::byte> image(kSaveHeaderBytes + kDataLength + 10);
  PutSaveHeader(std::span(image).first(kSaveHeaderBytes + kDataLength), header);
  const auto before_stream = WithDescription(std::span(image).first(kSaveHeaderBytes + kDataLength), header, "<new/>");
  for (const EditStep& step : PlanEditRecord(EditedImage::Of(header, before_stream, ByteCount{image.size()}))) {
    Place(image, step.at.value(), step.bytes);
  }
  return image;
}

void AddInterruptedEdits(const SeedDirectory& seeds) {
  for (const std::uint32_t version : {1U, 2U, 3U}) {
    const std::vector<std::byte> image = InterruptedEdit(version);
    for (const char choice : {char{0}, char{1}, char{2}, char{3}}) {
      const std::string name = std::to_string(version) + "-" + std::to_string(choice);
      seeds.Add("record" + name, choice, image);
      seeds.Add("none" + name, choice, std::span(image).first(kSaveHeaderBytes + 110));
    }
  }
}

}  // namespace

void AddOwnImages(const std::filesystem::path& corpus) {
  const SeedDirectory images(corpus, "whole_image");
  const ScratchDirectory scratch(std::filesystem::temp_directory_path());
  const SyntheticGuest guest({ByteCount{4 * kPageBytes}, 50, 1});
  SaveImage(scratch.Path("2"), guest.image(), 2);
  SaveImage(scratch.Path("3"), guest.image(), 3);
  AddForAllActs(images, "two", ReadWholeFile(scratch.Path("2")));
  AddForAllActs(images, "three", ReadWholeFile(scratch.Path("3")));
  AddForAllActs(images, "golden", golden::Version3Image());
  AddForAllActs(images, "sparse", Converted(scratch, "3", TargetKind::kLibvirtSparse));
  AddForAllActs(images, "bare", golden::LegacyStream());
  AddCompressed({corpus, "compressed_image"}, "golden", golden::LegacyStream());
  AddInterruptedEdits({corpus, "edit_record"});
}

void AddRealImage(const std::filesystem::path& corpus, const std::string& path) {
  const Image image(path);
  const std::filesystem::path file(path);
  const std::string name = file.parent_path().filename().string() + "-" + file.filename().string();
  const std::vector<std::byte> bytes = ReadWholeFile(path);
  AddForAllActs({corpus, "whole_image"}, name, bytes);
  if (image.has_fixed_offsets() || image.header()) return;
  SeedDirectory(corpus, "stream_reader").Add(name, 0, bytes);
  AddCompressed({corpus, "compressed_image"}, name, bytes);
}

}  // namespace vmsave
