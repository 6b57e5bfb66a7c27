// vmimage convert: a guest goes on from an image of every kind made from an image of every kind, and whatever goes
// wrong leaves the images that were there.
#include <fmt/format.h>
#include <signal.h>

#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <ostream>
#include <random>
#include <sstream>

#include "tests/e2e/end_to_end_test.h"

namespace vmsave {
namespace {

using Clock = std::chrono::steady_clock;

constexpr const char* kStream = "save image, sequential stream";
constexpr const char* kCompressed = "save image, compressed stream";
constexpr const char* kFixedOffsets = "save image, fixed offsets";
constexpr const char* kSparse = "libvirt sparse image, fixed offsets";
constexpr const char* kBareStream = "bare QEMU stream";
constexpr const char* kBareMappedRam = "bare QEMU mapped-ram file";

struct Target {
  std::string name;
  std::vector<std::string> options;  // of vmimage convert
  std::string kind;
};

const Target kTargets[] = {{"version2", {"--to", "2"}, kStream},
                           {"zstd", {"--to", "2", "--compress", "zstd"}, kCompressed},
                           {"version3", {"--to", "3"}, kFixedOffsets},
                           {"sparse", {"--to", "libvirt-sparse"}, kSparse}};

class ConvertImageTest : public EndToEndTest {
 protected:
  void SetUp() override {}  // no QEMU needed

  static std::vector<std::string> ConvertCommand(const std::vector<std::string>& options,
                                                 const std::vector<std::string>& images) {
    std::vector<std::string> command{VMIMAGE_PROGRAM, "convert"};
    command.insert(command.end(), options.begin(), options.end());
    command.insert(command.end(), images.begin(), images.end());
    return command;
  }
  static Outcome Convert(const std::vector<std::string>& options, const std::vector<std::string>& images) {
    return RunToEnd(ConvertCommand(options, images));
  }
  // Where no file may become longer than that.
  static Outcome ConvertWithin(std::uint64_t bytes, const std::vector<std::string>& options,
                               const std::vector<std::string>& images) {
    std::vector<std::string> command{"sh", "-c", fmt::format("ulimit -f {}; exec \"$@\"", bytes / 512), "sh"};
    const std::vector<std::string> convert = ConvertCommand(options, images);
    command.insert(command.end(), convert.begin(), convert.end());
    return RunToEnd(command);
  }

  static std::string KindOf(const std::string& image) { return InfoOf(image).at("kind"); }
  static testing::AssertionResult IsSound(const std::string& image) {
    return Succeeded(RunToEnd({VMIMAGE_PROGRAM, "verify", image}));
  }

  void MakeImage(const std::string& shape, const std::string& version) const {
    ASSERT_TRUE(Succeeded(
        RunToEnd({VMSAVE_PROGRAM, "--synthetic", shape, "--image-version", version, "--force", ImagePath()})));
  }
  // ImagePath() as it is now.
  std::string Copy() const {
    std::filesystem::copy_file(ImagePath(), files_.Path("copy"), std::filesystem::copy_options::overwrite_existing);
    return files_.Path("copy");
  }
  static testing::AssertionResult Same(const std::string& image, const std::string& other) {
    return Succeeded(RunToEnd({"cmp", image, other}));
  }

  const std::string target_ = ImagePath("converted.sav");
};

// Who wrote the source, a file of a guest that ran.
enum class SourceWriter { kVmsave, kQemuStream, kQemuMappedRam };

struct Source {
  std::string name;
  WhichQemu qemu;
  SourceWriter writer;
  std::vector<std::string> save_options;     // of vmsave
  std::vector<std::string> convert_options;  // none: as it was saved
  std::string kind;
};

std::ostream& operator<<(std::ostream& out, const Source& source) {
  return out << source.name;
}

const Source kSources[] = {
    {"Version2", WhichQemu::kOld, SourceWriter::kVmsave, {"--image-version", "2"}, {}, kStream},
    {"Version3", WhichQemu::kNew, SourceWriter::kVmsave, {"--image-version", "3"}, {}, kFixedOffsets},
    {"Version3WithoutChecksums",
     WhichQemu::kOld,
     SourceWriter::kVmsave,
     {"--image-version", "3", "--no-checksums"},
     {},
     kFixedOffsets},
    {"LibvirtSparse",
     WhichQemu::kNew,
     SourceWriter::kVmsave,
     {"--image-version", "3"},
     {"--to", "libvirt-sparse"},
     kSparse},
    {"Zstd", WhichQemu::kOld, SourceWriter::kVmsave, {}, {"--to", "2", "--compress", "zstd"}, kCompressed},
    {"Gzip",
     WhichQemu::kNew,
     SourceWriter::kVmsave,
     {"--image-version", "3"},
     {"--to", "2", "--compress", "gzip"},
     kCompressed},
    {"BareStream", WhichQemu::kNew, SourceWriter::kQemuStream, {}, {}, kBareStream},
    {"BareMappedRam", WhichQemu::kNew, SourceWriter::kQemuMappedRam, {}, {}, kBareMappedRam}};

WhichQemu Other(WhichQemu qemu) {
  return qemu == WhichQemu::kOld ? WhichQemu::kNew : WhichQemu::kOld;
}

GuestShape SmallShape(WhichQemu qemu) {
  return {.qemu = qemu, .memory_kib = 16 << 10};
}

class ConvertedGuestTest : public ConvertImageTest, public testing::WithParamInterface<Source> {
 protected:
  void SetUp() override {
    EndToEndTest::SetUp();
    if (IsSkipped()) return;
    saved_ = std::make_unique<Guest>(files_, "saved", SmallShape(GetParam().qemu));
    saved_->Boot();
    WriteSource();
  }

  void WriteSource() {
    const Source& source = GetParam();
    if (source.writer == SourceWriter::kVmsave) {
      ASSERT_TRUE(Succeeded(Save(*saved_, source.save_options)));
      WaitUntil("the end of the saved QEMU", [this] { return saved_->Processes().empty(); });
    } else {
      MigrateToFile(source.writer == SourceWriter::kQemuMappedRam);
    }
    if (!source.convert_options.empty()) {
      ASSERT_TRUE(Succeeded(Convert(source.convert_options, {ImagePath(), target_})));
      std::filesystem::rename(target_, ImagePath());
    }
    ASSERT_EQ(KindOf(ImagePath()), source.kind);
  }

  // As an operator would, without vmsave. The guest runs meanwhile.
  void MigrateToFile(bool mapped_ram) {
    const std::unique_ptr<QmpClient> qmp = saved_->Connect();
    qmp->Execute("migrate-set-capabilities",
                 {{"capabilities", {{{"capability", "mapped-ram"}, {"state", mapped_ram}}}}});
    qmp->Execute("migrate", {{"uri", "file:" + ImagePath()}});
    WaitUntil("the end of the migration",
              [&] { return qmp->Execute("query-migrate").value("status", "") == "completed"; });
    saved_->Kill();
  }

  void ExpectGoesOnFrom(const std::string& image, const std::string& id, WhichQemu qemu) const {
    const Guest restored(files_, id, SmallShape(qemu));
    restored.PrintToCopyOf(*saved_);
    ASSERT_TRUE(Succeeded(RunToEnd(VmrestoreCommand(restored, {"--detach", image}))));
    EXPECT_TRUE(GoesOn(restored));
  }

  std::unique_ptr<Guest> saved_;
};

INSTANTIATE_TEST_SUITE_P(Sources, ConvertedGuestTest, testing::ValuesIn(kSources), testing::PrintToStringParamName());

// In both QEMUs by turns.
TEST_P(ConvertedGuestTest, GoesOn) {
  WhichQemu qemu = Other(GetParam().qemu);
  for (const Target& target : kTargets) {
    SCOPED_TRACE(target.name);
    const std::string converted = ImagePath(target.name + ".sav");
    ASSERT_TRUE(Succeeded(Convert(target.options, {ImagePath(), converted})));

    EXPECT_EQ(KindOf(converted), target.kind);
    EXPECT_TRUE(IsSound(converted));
    ExpectGoesOnFrom(converted, target.name, qemu);
    qemu = Other(qemu);
  }
}

// However far it came: the image is sound, of the one kind or the other.
TEST_F(ConvertImageTest, InPlaceThatIsKilledLeavesASoundImage) {
  MakeImage("64M,zero=50", "3");
  const std::uintmax_t length = std::filesystem::file_size(ImagePath());
  const std::vector<std::string> as_version2{"--to", "2", "--parallel", "1", "--force"};
  const std::string before = files_.Path("before");
  ASSERT_TRUE(Succeeded(Convert(as_version2, {ImagePath(), before})));
  const auto in_place = [](const std::string& to) { return std::vector<std::string>{"--in-place", "--to", to}; };
  const auto duration = [&](const std::string& to) {
    const auto start = Clock::now();
    EXPECT_TRUE(Succeeded(Convert(in_place(to), {ImagePath()})));
    return Clock::now() - start;
  };
  const Clock::duration to_sparse = duration("libvirt-sparse");
  const Clock::duration to_version3 = duration("3");
  std::mt19937_64 random(17);
  for (int round = 0; round < 100; ++round) {
    SCOPED_TRACE(round);
    const bool is_sparse = KindOf(ImagePath()) == kSparse;
    const Clock::duration whole = is_sparse ? to_version3 : to_sparse;
    ProgramRun run(ConvertCommand(in_place(is_sparse ? "3" : "libvirt-sparse"), {ImagePath()}));
    std::this_thread::sleep_for(whole * static_cast<int>(random() % 1000) / 1000);
    run.Signal(SIGKILL);
    run.Wait();
    ASSERT_TRUE(IsSound(ImagePath()));
    const std::string kind = KindOf(ImagePath());
    ASSERT_TRUE(kind == kSparse || kind == kFixedOffsets) << kind;
  }
  for (const char* to : {"libvirt-sparse", "3"}) ASSERT_TRUE(Succeeded(Convert(in_place(to), {ImagePath()})));
  EXPECT_EQ(KindOf(ImagePath()), kFixedOffsets);
  EXPECT_TRUE(IsSound(ImagePath()));
  EXPECT_EQ(std::filesystem::file_size(ImagePath()), length);
  ASSERT_TRUE(Succeeded(Convert(as_version2, {ImagePath(), target_})));
  EXPECT_TRUE(Same(target_, before));
}

TEST_F(ConvertImageTest, InPlaceIsRefusedWhereThePagesWouldMove) {
  for (const auto& [version, to] : {std::pair("2", "3"), std::pair("2", "libvirt-sparse"), std::pair("3", "2")}) {
    SCOPED_TRACE(fmt::format("from {} to {}", version, to));
    MakeImage("4M", version);
    const std::string before = Copy();
    EXPECT_TRUE(Refused(Convert({"--in-place", "--to", to}, {ImagePath()}), 1, "name a TARGET"));
    EXPECT_TRUE(Same(ImagePath(), before));
  }
}

TEST_F(ConvertImageTest, InPlaceOnAFullDiskLeavesTheImageAsItWas) {
  MakeImage("16M,zero=50", "3");
  ASSERT_TRUE(Succeeded(Convert({"--in-place", "--to", "libvirt-sparse"}, {ImagePath()})));
  const std::string before = Copy();

  const std::uint64_t no_more = std::filesystem::file_size(ImagePath());
  EXPECT_TRUE(Refused(ConvertWithin(no_more, {"--in-place", "--to", "3"}, {ImagePath()}), 1, "File too large"));

  EXPECT_EQ(KindOf(ImagePath()), kSparse);
  EXPECT_TRUE(IsSound(ImagePath()));
  ASSERT_TRUE(Succeeded(Convert({"--in-place", "--to", "3"}, {ImagePath()})));
  ASSERT_TRUE(Succeeded(Convert({"--in-place", "--to", "libvirt-sparse"}, {ImagePath()})));
  EXPECT_TRUE(Same(ImagePath(), before));
}

TEST_F(ConvertImageTest, ExistingTargetIsReplacedOnlyByForce) {
  MakeImage("4M", "3");
  WriteWholeFile(target_, "somebody's");

  EXPECT_TRUE(Refused(Convert({"--to", "2"}, {ImagePath(), target_}), 1, "it exists already"));
  EXPECT_EQ(ReadWholeFile(target_), "somebody's");

  EXPECT_TRUE(Succeeded(Convert({"--to", "2", "--force"}, {ImagePath(), target_})));
  EXPECT_EQ(KindOf(target_), kStream);
}

TEST_F(ConvertImageTest, WrongUsageIsRefused) {
  MakeImage("4M", "3");
  const std::string before = Copy();

  EXPECT_TRUE(Refused(Convert({}, {ImagePath(), target_}), 2, "--to is missing"));
  EXPECT_TRUE(Refused(Convert({"--to", "4"}, {ImagePath(), target_}), 2, "--to"));
  EXPECT_TRUE(Refused(Convert({"--to", "2"}, {ImagePath()}), 2, "TARGET is missing"));
  EXPECT_TRUE(Refused(Convert({"--to", "3", "--in-place"}, {ImagePath(), target_}), 2, "only one of them"));
  for (const char* to : {"3", "libvirt-sparse"}) {
    EXPECT_TRUE(Refused(Convert({"--to", to, "--compress", "zstd"}, {ImagePath(), target_}), 2, "--compress"));
  }
  EXPECT_TRUE(Refused(Convert({"--to", "2", "--no-checksums"}, {ImagePath(), target_}), 2, "--no-checksums"));
  EXPECT_TRUE(Refused(Convert({"--to", "3", "--in-place", "--force"}, {ImagePath()}), 2, "--force"));

  EXPECT_EQ(FilesBesideImage(), std::vector<std::string>{"vm1.sav"});
  EXPECT_TRUE(Same(ImagePath(), before));
}

TEST_F(ConvertImageTest, FullDiskLeavesNoFile) {
  MakeImage("16M,zero=50", "2");
  const std::string before = Copy();
  for (const Target& target : kTargets) {
    SCOPED_TRACE(target.name);
    EXPECT_TRUE(Refused(ConvertWithin(4 << 20, target.options, {ImagePath(), target_}), 1, "File too large"));
    EXPECT_EQ(FilesBesideImage(), std::vector<std::string>{"vm1.sav"});
  }
  EXPECT_TRUE(Same(ImagePath(), before));
}

TEST_F(ConvertImageTest, CtrlCLeavesNoFile) {
  MakeImage("64M,zero=50", "3");
  const std::string before = Copy();
  // Takes seconds.
  ProgramRun run(ConvertCommand({"--to", "2", "--compress", "bzip2"}, {ImagePath(), target_}));
  WaitUntil("bytes of the target", [&] {
    for (const std::string& name : FilesBesideImage()) {
      if (name.starts_with(".") && std::filesystem::file_size(ImagePath(name)) > 0) return true;
    }
    return run.Ended();
  });

  run.Signal(SIGINT);

  EXPECT_TRUE(Refused(run.Wait(), 130, "interrupted"));
  EXPECT_EQ(FilesBesideImage(), std::vector<std::string>{"vm1.sav"});
  EXPECT_TRUE(Same(ImagePath(), before));
}

nlohmann::json LastLine(const Outcome& outcome, const std::string& key) {
  std::istringstream lines(outcome.out);
  std::vector<nlohmann::json> outcomes;
  for (std::string line; std::getline(lines, line);) {
    outcomes.push_back(nlohmann::json::parse(line));
    if (outcomes.back().contains("progress")) outcomes.pop_back();
  }
  EXPECT_EQ(outcomes.size(), 1U) << outcome.out;
  return outcomes.empty() ? nlohmann::json() : outcomes.back().value(key, nlohmann::json());
}

TEST_F(ConvertImageTest, ProgressForScriptsEndsWithTheOutcome) {
  MakeImage("4M", "3");
  const Outcome moved = Convert({"--to", "2", "--compress", "gzip", "--progress", "json"}, {ImagePath(), target_});
  const Outcome refused = Convert({"--to", "2", "--progress", "json"}, {ImagePath(), target_});
  const Outcome stayed = Convert({"--in-place", "--to", "libvirt-sparse", "--progress", "json"}, {ImagePath()});

  ASSERT_TRUE(Succeeded(moved));
  nlohmann::json completed = LastLine(moved, "completed");
  EXPECT_GT(completed.at("seconds"), 0.0);
  completed.erase("seconds");
  EXPECT_EQ(completed, (nlohmann::json{{"image", target_},
                                       {"to", "2"},
                                       {"compression", "gzip"},
                                       {"ram_bytes", 4 << 20},
                                       {"file_length", std::filesystem::file_size(target_)},
                                       {"pages", "moved"}}));
  EXPECT_EQ(refused.status, 1);
  EXPECT_FALSE(LastLine(refused, "failed").is_null()) << refused.out;
  ASSERT_TRUE(Succeeded(stayed));
  EXPECT_EQ(LastLine(stayed, "completed").at("pages"), "stayed");
  EXPECT_EQ(LastLine(stayed, "completed").at("image"), ImagePath());
}

}  // namespace
}  // namespace vmsave
