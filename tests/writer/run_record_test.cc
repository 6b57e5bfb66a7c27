#include "writer/run_record.h"

#include <gtest/gtest.h>

#include "tests/scratch_directory.h"
#include "tests/writer/image_files.h"
#include "tests/writer/loaded_guest.h"
#include "tests/writer/small_guest.h"

namespace vmsave {
namespace {

class RunRecordTest : public testing::TestWithParam<std::uint32_t> {};

INSTANTIATE_TEST_SUITE_P(Versions, RunRecordTest, testing::Values(2, 3));

TEST_P(RunRecordTest, CorrectsAnImageThatIsWholeAllTheSame) {
  const ScratchDirectory directory;
  for (const bool was_running : {true, false}) {
    SmallGuest guest;
    guest.image().was_running = !was_running;
    const std::string path = directory.Path("vm.sav");
    NewFile file(path, Replace::kYes, CacheUse::kPageCache);
    Progress progress;
    WriteImage(file, guest.image(), GetParam(), {}, progress);

    RecordWasRunning(file, was_running);

    file.Publish();
    guest.image().was_running = was_running;
    ExpectHoldsGuest(path, guest.image());
  }
}

}  // namespace
}  // namespace vmsave
