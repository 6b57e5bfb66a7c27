#include <gtest/gtest.h>

#include "qemu/save_job.h"
#include "tests/qemu/running_qemu.h"
#include "tests/scratch_directory.h"
#include "tests/writer/image_files.h"

namespace vmsave {
namespace {

class MemorySaveTest : public testing::TestWithParam<std::tuple<const char*, ImageVersion>> {
 protected:
  void SetUp() override {
    const std::optional<std::string> executable = QemuFromEnvironment(std::get<0>(GetParam()));
    if (!executable) GTEST_SKIP() << std::get<0>(GetParam()) << " names no QEMU";
    qemu_.emplace(*executable, std::vector<std::string>{"-m", "16M", "-machine", "memory-backend=ram", "-object",
                                                        "memory-backend-memfd,id=ram,share=on,size=16M"});
  }

  Interrupt never_;
  ScratchDirectory directory_;
  std::optional<RunningQemu> qemu_;
};

TEST_P(MemorySaveTest, ReleasesTheGuestOnceAndBeforeTheImageIsSynced) {
  QmpClient qmp(qemu_->qmp_socket_path(), never_);
  const ImageVersion version = std::get<1>(GetParam());
  const SourceChoice choice = ChooseSource(qmp, {.source = SaveSource::kMemory, .version = version});
  NewFile file(directory_.Path("vm.sav"), Replace::kNo, CacheUse::kPageCache);
  Progress progress;
  qmp.Execute("stop");
  int releases = 0;
  SaveJob job{.qmp = qmp,
              .file = file,
              .version = version,
              .live = LiveMode::kNo,
              .most_ram = kMostRam,
              .write = {},
              .limits = {},
              .description = "<domain/>",
              .was_running = true,
              .guest = {},
              .found_state =
                  [&](std::span<const std::byte> device_state) {
                    EXPECT_FALSE(device_state.empty());
                    EXPECT_EQ(releases, 0);
                  },
              .release =
                  [&] {
                    ++releases;
                    EXPECT_EQ(progress.phase(), "saving");
                    EXPECT_TRUE(IsPartial(file));
                  },
              .guard = nullptr,
              .progress = progress,
              .interrupt = never_};
  SaveFromMemory(job, choice.ram);

  EXPECT_EQ(releases, 1);
}

INSTANTIATE_TEST_SUITE_P(All, MemorySaveTest,
                         testing::Combine(testing::Values("VMSAVE_QEMU_OLD", "VMSAVE_QEMU_NEW"),
                                          testing::Values(ImageVersion::k2, ImageVersion::k3)),
                         [](const auto& shown) {
                           return std::string(std::get<0>(shown.param)) + "Version" +
                                  std::to_string(static_cast<int>(std::get<1>(shown.param)));
                         });

}  // namespace
}  // namespace vmsave
