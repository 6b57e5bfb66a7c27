// io_uring where the kernel refuses parts of it, and the choice of the engine.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/syscall.h>

#include <algorithm>
#include <cerrno>
#include <string>
#include <thread>

#include "io/direct_alignment.h"
#include "io/io_engine.h"
#include "tests/io/child_process.h"
#include "tests/io/pattern_bytes.h"
#include "tests/scratch_directory.h"

namespace vmsave {
namespace {

constexpr std::size_t kMebibyte = std::size_t{1} << 20;

std::string Describe(const EngineChoice& choice) {
  return std::string(EngineName(choice.kind)) + ": " + choice.fallback_reason;
}

class UringEngineTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const EngineChoice choice = ChooseEngine(std::nullopt);
    if (choice.kind != EngineKind::kUring) GTEST_SKIP() << choice.fallback_reason;
  }

  std::string MakeImage(std::span<const std::byte> bytes) const {
    std::string path = scratch_.Path("image");
    WriteAt(OpenFile(path, O_RDWR | O_CREAT, 0600), bytes, FileOffset{0});
    return path;
  }

  ScratchDirectory scratch_;
};

TEST(ChooseEngineTest, WantedSyncEngineNeedsNoReason) {
  EXPECT_EQ(Describe(ChooseEngine(EngineKind::kSync)), "sync: ");
}

TEST_F(UringEngineTest, IsChosenWhereTheKernelHasIt) {
  EXPECT_EQ(Describe(ChooseEngine(std::nullopt)), "uring: ");
  EXPECT_EQ(Describe(ChooseEngine(EngineKind::kUring)), "uring: ");
}

TEST_F(UringEngineTest, FallsBackWithAReasonWhereTheKernelHasNone) {
  const std::string said = InChild([]() -> std::string {
    if (!FailSystemCall(SYS_io_uring_setup, ENOSYS)) return kNotPermitted;
    return Describe(ChooseEngine(std::nullopt));
  });
  if (said == kNotPermitted) GTEST_SKIP() << "no seccomp";
  EXPECT_EQ(said, "sync: the kernel has no io_uring (Function not implemented)");
}

TEST_F(UringEngineTest, FallsBackWithAReasonWhereItIsForbidden) {
  const std::string said = InChild([]() -> std::string {
    if (!FailSystemCall(SYS_io_uring_setup, EPERM)) return kNotPermitted;
    return Describe(ChooseEngine(std::nullopt));
  });
  if (said == kNotPermitted) GTEST_SKIP() << "no seccomp";
  EXPECT_EQ(said, "sync: io_uring is forbidden here (Operation not permitted)");
}

TEST_F(UringEngineTest, WantedButNotToBeHadIsAnError) {
  const std::string said = InChild([]() -> std::string {
    if (!FailSystemCall(SYS_io_uring_setup, ENOSYS)) return kNotPermitted;
    return Describe(ChooseEngine(EngineKind::kUring));
  });
  if (said == kNotPermitted) GTEST_SKIP() << "no seccomp";
  EXPECT_EQ(said,
            "cannot use the uring engine: the kernel has no io_uring (Function not implemented) (the sync engine needs "
            "no io_uring)");
}

// Linux 5.6 brought the operations that the engine needs and, with io_uring_register, the way to ask for them.
TEST_F(UringEngineTest, TooOldKernelIsRefused) {
  const std::string said = InChild([]() -> std::string {
    if (!FailSystemCall(SYS_io_uring_register, EINVAL)) return kNotPermitted;
    return Describe(ChooseEngine(std::nullopt));
  });
  if (said == kNotPermitted) GTEST_SKIP() << "no seccomp";
  EXPECT_EQ(said, "sync: the io_uring of this kernel is too old (it takes Linux 5.6)");
}

TEST_F(UringEngineTest, WorksWithoutRegisteredFiles) {
  const AlignedBuffer bytes = PatternBuffer(8 * kPageBytes, 1);
  const std::string path = MakeImage(bytes.bytes());
  const std::string said = InChild([&]() -> std::string {
    const FileDescriptor file = OpenFile(path, O_RDONLY);
    const std::unique_ptr<IoEngine> engine = MakeEngine(EngineKind::kUring, 8);
    if (!FailSystemCall(SYS_io_uring_register, EINVAL)) return kNotPermitted;
    AlignedBuffer back(bytes.size());
    for (std::size_t at = 0; at < back.size(); at += kPageBytes) {
      engine->SubmitRead(file, back.bytes().subspan(at, kPageBytes), FileOffset{at});
    }
    engine->Drain();
    return std::ranges::equal(bytes.bytes(), back.bytes()) ? "same" : "different";
  });
  if (said == kNotPermitted) GTEST_SKIP() << "no seccomp";
  EXPECT_EQ(said, "same");
}

TEST_F(UringEngineTest, RefusedRequestIsNotInFlightAndDestructionDoesNotWaitForIt) {
  const std::string path = MakeImage(PatternBuffer(kPageBytes, 2).bytes());
  const std::string said = InChild([&]() -> std::string {
    const FileDescriptor file = OpenFile(path, O_RDONLY);
    const std::unique_ptr<IoEngine> engine = MakeEngine(EngineKind::kUring, 1);
    if (!FailSystemCall(SYS_io_uring_enter, EPERM)) return kNotPermitted;
    AlignedBuffer back(kPageBytes);
    try {
      engine->SubmitRead(file, back.bytes(), FileOffset{0});
    } catch (const Error& error) {
      return std::to_string(engine->in_flight()) + " in flight: " + error.what();
    }
    return "it worked";
  });
  if (said == kNotPermitted) GTEST_SKIP() << "no seccomp";
  EXPECT_EQ(said, "0 in flight: cannot start I/O on " + path + ": Operation not permitted");
}

// The memory would be freed under the kernel's hands otherwise.
TEST_F(UringEngineTest, DestructorWaitsEvenWhereTheKernelRefusesToWait) {
  const AlignedBuffer bytes = PatternBuffer(8 * kMebibyte, 3);
  const std::string path = MakeImage(bytes.bytes());
  const std::string said = InChild([&]() -> std::string {
    const FileDescriptor file = OpenDirect(path, O_RDONLY);
    std::unique_ptr<IoEngine> engine = MakeEngine(EngineKind::kUring, 8);
    AlignedBuffer back(bytes.size());
    for (std::size_t at = 0; at < back.size(); at += kMebibyte) {
      engine->SubmitRead(file, back.bytes().subspan(at, kMebibyte), FileOffset{at});
    }
    if (!FailSystemCall(SYS_io_uring_enter, EPERM)) return kNotPermitted;
    engine.reset();
    return std::ranges::equal(bytes.bytes(), back.bytes()) ? "same" : "different";
  });
  if (said == kNotPermitted) GTEST_SKIP() << "no seccomp";
  EXPECT_EQ(said, "same");
}

TEST_F(UringEngineTest, MayBeMadeByAnotherThreadThanTheOneThatUsesIt) {
  const AlignedBuffer bytes = PatternBuffer(8 * kPageBytes, 4);
  const FileDescriptor file = OpenFile(MakeImage(bytes.bytes()), O_RDONLY);
  const std::unique_ptr<IoEngine> engine = MakeEngine(EngineKind::kUring, 8);
  AlignedBuffer back(bytes.size());
  std::thread user([&] {
    for (std::size_t at = 0; at < back.size(); at += kPageBytes) {
      engine->SubmitRead(file, back.bytes().subspan(at, kPageBytes), FileOffset{at});
    }
    engine->Drain();
  });
  user.join();
  EXPECT_TRUE(std::ranges::equal(bytes.bytes(), back.bytes()));
}

}  // namespace
}  // namespace vmsave
