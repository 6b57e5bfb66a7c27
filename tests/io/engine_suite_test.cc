// What every engine must do, run on each of them.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <ostream>
#include <set>
#include <string>
#include <vector>

#include "io/direct_alignment.h"
#include "io/io_engine.h"
#include "tests/io/child_process.h"
#include "tests/io/pattern_bytes.h"
#include "tests/scratch_directory.h"

namespace vmsave {

// What GoogleTest calls the parameter.
static void PrintTo(EngineKind kind, std::ostream* out) {
  *out << EngineName(kind);
}

namespace {

constexpr std::size_t kMebibyte = std::size_t{1} << 20;

class EngineSuite : public ::testing::TestWithParam<EngineKind> {
 protected:
  void SetUp() override {
    if (GetParam() != EngineKind::kUring) return;
    const EngineChoice choice = ChooseEngine(std::nullopt);
    if (choice.kind != EngineKind::kUring) GTEST_SKIP() << choice.fallback_reason;
  }

  std::unique_ptr<IoEngine> Make(unsigned depth) const { return MakeEngine(GetParam(), depth); }

  FileDescriptor NewFileOf(const std::string& name, std::span<const std::byte> bytes) const {
    FileDescriptor file = OpenFile(scratch_.Path(name), O_RDWR | O_CREAT | O_EXCL, 0600);
    WriteAt(file, bytes, FileOffset{0});
    return file;
  }

  ScratchDirectory scratch_;
};

INSTANTIATE_TEST_SUITE_P(Engines, EngineSuite, ::testing::Values(EngineKind::kUring, EngineKind::kSync),
                         [](const auto& engine) { return std::string(EngineName(engine.param)); });

bool SameBytes(std::span<const std::byte> a, std::span<const std::byte> b) {
  return std::ranges::equal(a, b);
}

bool Contains(const std::string& text, std::string_view part) {
  return text.find(part) != std::string::npos;
}

// The text of the Error that `call` throws, with its kind checked; "" where it throws none.
template <class Call>
std::string ErrorOf(ErrorKind kind, Call call) {
  try {
    call();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), kind) << error.what();
    return error.what();
  }
  return "";
}

// Writes `bytes` in pieces, keeping the engine full, and reads them back in the same way into `back`.
void WriteAll(IoEngine& engine, const FileDescriptor& file, std::span<const std::byte> bytes, std::size_t piece) {
  for (std::size_t at = 0; at < bytes.size(); at += piece) {
    if (engine.full()) engine.Wait();
    engine.SubmitWrite(file, bytes.subspan(at, std::min(piece, bytes.size() - at)), FileOffset{at});
  }
  engine.Drain();
}

void ReadAll(IoEngine& engine, const FileDescriptor& file, std::span<std::byte> back, std::size_t piece) {
  for (std::size_t at = 0; at < back.size(); at += piece) {
    if (engine.full()) engine.Wait();
    engine.SubmitRead(file, back.subspan(at, std::min(piece, back.size() - at)), FileOffset{at});
  }
  engine.Drain();
}

TEST_P(EngineSuite, ReadsBackWhatItWrote) {
  const AlignedBuffer bytes = PatternBuffer(3 * kMebibyte + 777, 1);
  const FileDescriptor file = NewFileOf("image", {});
  const std::unique_ptr<IoEngine> engine = Make(8);
  WriteAll(*engine, file, bytes.bytes(), 100'000);
  AlignedBuffer back(bytes.size());
  ReadAll(*engine, file, back.bytes(), 70'001);
  EXPECT_TRUE(SameBytes(bytes.bytes(), back.bytes()));
  EXPECT_EQ(FileLength(file), ByteCount{bytes.size()});
}

TEST_P(EngineSuite, WritesTheSameBytesWithAndWithoutDirectIo) {
  const AlignedBuffer bytes = PatternBuffer(4 * kMebibyte, 2);
  const FileDescriptor buffered = NewFileOf("buffered", {});
  const FileDescriptor plain = NewFileOf("direct", {});
  const FileDescriptor direct = OpenDirect(scratch_.Path("direct"), O_RDWR);
  const std::unique_ptr<IoEngine> engine = Make(16);
  WriteAll(*engine, buffered, bytes.bytes(), 16 * kPageBytes);
  WriteAll(*engine, direct, bytes.bytes(), 16 * kPageBytes);
  for (const FileDescriptor* file : {&buffered, &plain, &direct}) {
    AlignedBuffer back(bytes.size());
    ReadAll(*engine, *file, back.bytes(), 64 * kPageBytes);
    EXPECT_TRUE(SameBytes(bytes.bytes(), back.bytes()));
  }
}

TEST_P(EngineSuite, KeepsAsManyInFlightAsItsDepthAndGivesEachIdBackOnce) {
  constexpr unsigned kDepth = 64;
  const AlignedBuffer bytes = PatternBuffer(kDepth * kPageBytes, 3);
  const FileDescriptor file = NewFileOf("image", bytes.bytes());
  const std::unique_ptr<IoEngine> engine = Make(kDepth);
  EXPECT_EQ(engine->depth(), kDepth);
  AlignedBuffer back(bytes.size());
  for (unsigned i = 0; i < kDepth; ++i) {
    EXPECT_FALSE(engine->full());
    engine->SubmitRead(file, back.bytes().subspan(i * kPageBytes, kPageBytes), FileOffset{i * kPageBytes}, 1000 + i);
  }
  EXPECT_TRUE(engine->full());
  std::set<RequestId> seen;
  while (engine->in_flight() > 0) seen.insert(engine->Wait());
  EXPECT_EQ(seen.size(), kDepth);
  EXPECT_EQ(*seen.begin(), 1000U);
  EXPECT_EQ(*seen.rbegin(), 1000U + kDepth - 1);
  EXPECT_TRUE(SameBytes(bytes.bytes(), back.bytes()));
}

TEST_P(EngineSuite, ServesMoreFilesAtOnceThanTheKernelRegisters) {
  constexpr std::size_t kFiles = 9;
  std::vector<FileDescriptor> files;
  std::vector<AlignedBuffer> contents;
  std::vector<AlignedBuffer> back;
  for (std::size_t i = 0; i < kFiles; ++i) {
    contents.push_back(PatternBuffer(4 * kPageBytes, 10 + i));
    back.emplace_back(contents.back().size());
    files.push_back(NewFileOf("image" + std::to_string(i), contents.back().bytes()));
  }
  const std::unique_ptr<IoEngine> engine = Make(4 * kFiles);
  for (std::size_t page = 0; page < 4; ++page) {
    for (std::size_t i = 0; i < kFiles; ++i) {
      engine->SubmitRead(files[i], back[i].bytes().subspan(page * kPageBytes, kPageBytes),
                         FileOffset{page * kPageBytes});
    }
  }
  engine->Drain();
  for (std::size_t i = 0; i < kFiles; ++i) EXPECT_TRUE(SameBytes(contents[i].bytes(), back[i].bytes())) << i;
}

// A descriptor's number is used again as soon as it is closed. An engine that remembered the file by its number would
// write into the old one.
TEST_P(EngineSuite, WritesToTheNewFileWhenADescriptorNumberIsUsedAgain) {
  const AlignedBuffer first = PatternBuffer(8 * kPageBytes, 20);
  const AlignedBuffer second = PatternBuffer(8 * kPageBytes, 21);
  const FileDescriptor other = NewFileOf("other", first.bytes());
  AlignedBuffer from_other(kPageBytes);
  const std::unique_ptr<IoEngine> engine = Make(8);

  FileDescriptor old_file = NewFileOf("old", {});
  const int number = old_file.number();
  WriteAll(*engine, old_file, first.bytes(), kPageBytes);
  old_file.Close();
  const FileDescriptor new_file = NewFileOf("new", {});
  ASSERT_EQ(new_file.number(), number);
  engine->SubmitRead(other, from_other.bytes(), FileOffset{0});
  WriteAll(*engine, new_file, second.bytes(), kPageBytes);

  AlignedBuffer back(second.size());
  ReadAt(OpenFile(scratch_.Path("new"), O_RDONLY), back.bytes(), FileOffset{0});
  EXPECT_TRUE(SameBytes(second.bytes(), back.bytes()));
  ReadAt(OpenFile(scratch_.Path("old"), O_RDONLY), back.bytes(), FileOffset{0});
  EXPECT_TRUE(SameBytes(first.bytes(), back.bytes()));
}

TEST_P(EngineSuite, ReadPastTheEndIsDamagedAndSaysWhereTheFileEnds) {
  const AlignedBuffer bytes = PatternBuffer(5000, 4);
  const FileDescriptor file = NewFileOf("image", bytes.bytes());
  const std::unique_ptr<IoEngine> engine = Make(2);
  AlignedBuffer back(8192);
  engine->SubmitRead(file, back.bytes(), FileOffset{0});
  const std::string said = ErrorOf(ErrorKind::kDamaged, [&] { engine->Wait(); });
  EXPECT_EQ(said, "cannot read " + file.name() + " at byte 5000: it ends early (3192 more bytes were expected)");
  EXPECT_EQ(engine->in_flight(), 0U);
  EXPECT_TRUE(SameBytes(bytes.bytes(), back.bytes().first(5000)));
}

TEST_P(EngineSuite, DirectReadPastAnUnalignedEndIsDamagedToo) {
  NewFileOf("image", PatternBuffer(5000, 5).bytes());
  const FileDescriptor file = OpenDirect(scratch_.Path("image"), O_RDONLY);
  const std::unique_ptr<IoEngine> engine = Make(2);
  AlignedBuffer back(8192);
  engine->SubmitRead(file, back.bytes(), FileOffset{0});
  EXPECT_TRUE(Contains(ErrorOf(ErrorKind::kDamaged, [&] { engine->Wait(); }), "ends early"));
}

// The files of /proc give a few KiB to each read.
TEST_P(EngineSuite, ShortReadContinuesAtNextByte) {
  const std::string path = "/proc/kallsyms";
  if (!std::filesystem::exists(path)) GTEST_SKIP() << "no file here that is read in short pieces";
  const FileDescriptor file = OpenFile(path, O_RDONLY);
  AlignedBuffer expected(16 * kPageBytes);
  AlignedBuffer back(16 * kPageBytes);
  if (ReadUpTo(file, expected.bytes(), FileOffset{0}) < expected.size()) GTEST_SKIP() << path << " is too short";
  const std::unique_ptr<IoEngine> engine = Make(1);
  engine->SubmitRead(file, back.bytes(), FileOffset{0}, 7);
  EXPECT_EQ(engine->Wait(), 7U);
  EXPECT_TRUE(SameBytes(expected.bytes(), back.bytes()));
}

// At a limit on file size the kernel writes what fits and refuses the rest at its first byte.
TEST_P(EngineSuite, ShortWriteContinuesAtNextByteAndReportsWhatStopsIt) {
  const AlignedBuffer bytes = PatternBuffer(kMebibyte, 6);
  const std::string path = scratch_.Path("image");
  const std::string said = InChild([&]() -> std::string {
    ::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{6 * kMebibyte, 6 * kMebibyte};
    if (::setrlimit(RLIMIT_FSIZE, &limit) != 0) return "cannot limit the file size";
    const FileDescriptor file = OpenFile(path, O_RDWR | O_CREAT, 0600);
    const std::unique_ptr<IoEngine> engine = Make(2);
    engine->SubmitWrite(file, bytes.bytes(), FileOffset{6 * kMebibyte - 4096});
    engine->Wait();
    return "it worked";
  });
  EXPECT_EQ(said, "cannot write " + path +
                      " at 6.0 MiB: File too large (the file system or a limit of this process (ulimit -f) allows no "
                      "larger file)");
  AlignedBuffer back(4096);
  ReadAt(OpenFile(path, O_RDONLY), back.bytes(), FileOffset{6 * kMebibyte - 4096});
  EXPECT_TRUE(SameBytes(bytes.bytes().first(4096), back.bytes()));
}

TEST_P(EngineSuite, FullFileSystemIsReportedWithWhereAndWhatToDo) {
  const std::string mount = scratch_.path().string();
  const std::string said = InChild([&]() -> std::string {
    if (!MountForMyself("tmpfs", mount, "size=1m")) return kNotPermitted;
    const FileDescriptor file = OpenFile(scratch_.Path("image"), O_RDWR | O_CREAT, 0600);
    const AlignedBuffer bytes = PatternBuffer(2 * kMebibyte, 7);
    const std::unique_ptr<IoEngine> engine = Make(2);
    engine->SubmitWrite(file, bytes.bytes(), FileOffset{0});
    engine->Wait();
    return "it worked";
  });
  if (said == kNotPermitted) GTEST_SKIP() << "this user may not mount a small file system";
  EXPECT_EQ(said, "cannot write " + scratch_.Path("image") +
                      " at 1.0 MiB: No space left on device (free some space on that file system)");
}

TEST_P(EngineSuite, FailureOfOneRequestLeavesTheOthers) {
  const AlignedBuffer bytes = PatternBuffer(8 * kPageBytes, 8);
  const FileDescriptor file = NewFileOf("image", bytes.bytes());
  const FileDescriptor closed(1'000'000, "the closed one");
  AlignedBuffer back(9 * kPageBytes);
  const std::unique_ptr<IoEngine> engine = Make(16);
  for (std::size_t i = 0; i < 9; ++i) {
    const FileDescriptor& from = i == 3 ? closed : file;
    engine->SubmitRead(from, back.bytes().subspan(i * kPageBytes, kPageBytes), FileOffset{i % 8 * kPageBytes}, i);
  }
  const std::string said = ErrorOf(ErrorKind::kFailed, [&] { engine->Drain(); });
  EXPECT_EQ(said, "cannot read the closed one at byte 12288: Bad file descriptor");
  EXPECT_EQ(engine->in_flight(), 0U);
  EXPECT_TRUE(SameBytes(bytes.bytes().first(3 * kPageBytes), back.bytes().first(3 * kPageBytes)));
  EXPECT_TRUE(SameBytes(bytes.bytes().last(4 * kPageBytes), back.bytes().subspan(4 * kPageBytes, 4 * kPageBytes)));
  engine->SubmitRead(file, back.bytes().first(kPageBytes), FileOffset{0}, 77);
  EXPECT_EQ(engine->Wait(), 77U);
}

TEST_P(EngineSuite, UnopenedDescriptorIsAnError) {
  const FileDescriptor unopened;
  const std::unique_ptr<IoEngine> engine = Make(4);
  AlignedBuffer bytes = PatternBuffer(kPageBytes, 9);
  engine->SubmitWrite(unopened, bytes.bytes(), FileOffset{0});
  engine->SubmitRead(unopened, bytes.bytes(), FileOffset{0});
  EXPECT_TRUE(Contains(ErrorOf(ErrorKind::kFailed, [&] { engine->Wait(); }), "Bad file descriptor"));
  EXPECT_TRUE(Contains(ErrorOf(ErrorKind::kFailed, [&] { engine->Wait(); }), "Bad file descriptor"));
  EXPECT_EQ(engine->in_flight(), 0U);
}

TEST_P(EngineSuite, EmptyTransferCompletes) {
  const FileDescriptor file = NewFileOf("image", {});
  const std::unique_ptr<IoEngine> engine = Make(1);
  engine->SubmitRead(file, {}, FileOffset{0}, 5);
  EXPECT_EQ(engine->Wait(), 5U);
}

TEST_P(EngineSuite, DestructorWaitsForWhatIsInFlight) {
  const AlignedBuffer bytes = PatternBuffer(16 * kMebibyte, 11);
  NewFileOf("image", bytes.bytes());
  AlignedBuffer back(bytes.size());
  const FileDescriptor direct = OpenDirect(scratch_.Path("image"), O_RDONLY);
  {
    const std::unique_ptr<IoEngine> engine = Make(16);
    for (std::size_t at = 0; at < back.size(); at += kMebibyte) {
      engine->SubmitRead(direct, back.bytes().subspan(at, kMebibyte), FileOffset{at});
    }
  }
  EXPECT_TRUE(SameBytes(bytes.bytes(), back.bytes()));
}

}  // namespace
}  // namespace vmsave
