// vmimage dumpxml, setxml and edit.
#include <fmt/format.h>
#include <signal.h>

#include <filesystem>
#include <random>

#include "tests/e2e/end_to_end_test.h"

namespace vmsave {
namespace {

using Clock = std::chrono::steady_clock;

std::string Description(std::size_t length, const std::string& word) {
  std::string text = "<domain type='kvm'>\n  <name>synthetic</name>\n  <description>";
  while (text.size() < length) text += word;
  return text + "</description>\n</domain>\n";
}

class EditImageTest : public EndToEndTest, public testing::WithParamInterface<const char*> {
 protected:
  void SetUp() override {  // no QEMU needed
    ASSERT_TRUE(
        Succeeded(RunToEnd({VMSAVE_PROGRAM, "--synthetic", "16M", "--image-version", GetParam(), ImagePath()})));
    original_ = Description();
  }

  std::string Description() const {
    const Outcome outcome = RunToEnd({VMIMAGE_PROGRAM, "dumpxml", ImagePath()});
    EXPECT_TRUE(Succeeded(outcome));
    return outcome.out;
  }

  bool IsSound() const { return RunToEnd({VMIMAGE_PROGRAM, "verify", ImagePath()}).status == 0; }

  std::string FileWith(const std::string& text) const {
    const std::string path = files_.Path("new.xml");
    WriteWholeFile(path, text);
    return path;
  }

  Outcome SetXml(const std::string& text) const {
    return RunToEnd({VMIMAGE_PROGRAM, "setxml", ImagePath(), FileWith(text)});
  }

  // In a shell, with the variables, nothing but `input` to read, and its temporary files among ours.
  Outcome Shell(const std::string& variables, const std::string& command) const {
    return RunToEnd({"sh", "-c",
                     fmt::format("unset VISUAL EDITOR XDG_RUNTIME_DIR; export TMPDIR={} {}; {}", files_.path().string(),
                                 variables, command)});
  }
  Outcome Edit(const std::string& variables) const {
    return Shell(variables, fmt::format("{} edit {} </dev/null", VMIMAGE_PROGRAM, ImagePath()));
  }

  // What vmimage has left of its temporary files.
  std::vector<std::string> Kept() const {
    std::vector<std::string> kept;
    for (const auto& entry : std::filesystem::directory_iterator(files_.path())) {
      const std::string name = entry.path().filename().string();
      if (name.starts_with("vm")) kept.push_back(entry.path().string());
    }
    return kept;
  }

  std::string original_;
};

INSTANTIATE_TEST_SUITE_P(Versions, EditImageTest, testing::Values("2", "3"),
                         [](const auto& shown) { return fmt::format("Version{}", shown.param); });

TEST_P(EditImageTest, DumpxmlPrintsTheDescriptionAndNothingElse) {
  EXPECT_TRUE(original_.starts_with("<domain")) << original_;
  EXPECT_NE(original_.find("<name>synthetic</name>"), std::string::npos) << original_;
}

TEST_P(EditImageTest, SetxmlReplacesTheDescription) {
  const std::uintmax_t length = std::filesystem::file_size(ImagePath());
  for (const std::size_t size : {3000U, 60000U}) {
    const Outcome outcome = SetXml(vmsave::Description(size, "word "));
    EXPECT_TRUE(Succeeded(outcome));
    EXPECT_EQ(outcome.out, ImagePath() + ": description changed\n");
    EXPECT_EQ(Description(), vmsave::Description(size, "word "));
    EXPECT_TRUE(IsSound());
    EXPECT_EQ(std::filesystem::file_size(ImagePath()), length);
  }
}

TEST_P(EditImageTest, SetxmlReadsStandardInput) {
  const std::string pipe =
      fmt::format("{0} dumpxml {1} | sed s/vmsave-synthetic/kvm/ | {0} setxml {1} -", VMIMAGE_PROGRAM, ImagePath());
  EXPECT_EQ(Shell("", pipe).out, ImagePath() + ": description changed\n");
  EXPECT_TRUE(Description().starts_with("<domain type='kvm'>"));
  EXPECT_EQ(Shell("", pipe).out, ImagePath() + ": not changed\n");
  EXPECT_TRUE(IsSound());
}

TEST_P(EditImageTest, SetxmlRefusesWhatIsNotThisGuestsDescription) {
  const std::string uuid = "<uuid>6d7c1bd0-3b6f-4a57-a3a7-5b2e8a0c7f11</uuid>";
  EXPECT_TRUE(Refused(SetXml("<domain>"), 2, "no well-formed XML"));
  EXPECT_TRUE(Refused(SetXml("<network><name>synthetic</name></network>"), 2, "its root is not <domain>"));
  EXPECT_TRUE(Refused(SetXml("<domain><name>other</name></domain>"), 2, "its name is \"other\""));
  EXPECT_TRUE(Refused(SetXml("<domain/>"), 2, "its name is \"\""));
  EXPECT_TRUE(Refused(SetXml(vmsave::Description(70000, "long ")), 2, "has room for 65"));
  EXPECT_TRUE(Refused(RunToEnd({VMIMAGE_PROGRAM, "setxml", ImagePath(), "/nowhere.xml"}), 1, "/nowhere.xml"));
  EXPECT_EQ(Description(), original_);
  EXPECT_TRUE(Succeeded(SetXml("<domain><name>synthetic</name>" + uuid + "</domain>")));
  EXPECT_TRUE(Refused(SetXml("<domain><name>synthetic</name></domain>"), 2, "its UUID is \"\""));
  EXPECT_TRUE(Succeeded(
      SetXml("<domain><name>synthetic</name><uuid>6D7C1BD03B6F4A57A3A75B2E8A0C7F11</uuid><title>t</title></domain>")));
  EXPECT_TRUE(IsSound());
}

TEST_P(EditImageTest, EditChangesTheDescriptionWithTheOperatorsEditor) {
  const Outcome outcome = Edit("EDITOR=\"sed -i s/vmsave-synthetic/kvm/\"");
  EXPECT_TRUE(Succeeded(outcome));
  EXPECT_EQ(outcome.out, ImagePath() + ": description changed\n");
  EXPECT_TRUE(Description().starts_with("<domain type='kvm'>"));
  EXPECT_TRUE(IsSound());
  EXPECT_TRUE(Kept().empty());
}

TEST_P(EditImageTest, EditPrefersVisualToEditorToVi) {
  WriteWholeFile(files_.Path("vi"), "#!/bin/sh\nsed -i s/vmsave-synthetic/by-vi/ \"$1\"\n");
  std::filesystem::permissions(files_.Path("vi"), std::filesystem::perms::owner_all);
  EXPECT_TRUE(Succeeded(Edit(fmt::format("EDITOR= PATH={}:$PATH", files_.path().string()))));
  EXPECT_TRUE(Description().starts_with("<domain type='by-vi'>")) << Description();
  EXPECT_TRUE(Succeeded(Edit("VISUAL=\"sed -i s/by-vi/by-visual/\" EDITOR=false")));
  EXPECT_TRUE(Description().starts_with("<domain type='by-visual'>")) << Description();
}

TEST_P(EditImageTest, EditWithoutAChangeWritesNothing) {
  const auto before = std::filesystem::last_write_time(ImagePath());
  for (const char* editor : {"EDITOR=true", "EDITOR=\"sed -i s/there/is-none/\""}) {
    const Outcome outcome = Edit(editor);
    EXPECT_TRUE(Succeeded(outcome));
    EXPECT_EQ(outcome.out, ImagePath() + ": not changed\n");
  }
  EXPECT_EQ(std::filesystem::last_write_time(ImagePath()), before);
}

TEST_P(EditImageTest, EditKeepsTheTextThatItCannotUse) {
  const Outcome outcome = Edit("EDITOR=\"sed -i s/.domain/oops/\"");
  EXPECT_TRUE(Refused(outcome, 1, "no well-formed XML"));
  ASSERT_EQ(Kept().size(), 1U);
  EXPECT_NE(outcome.err.find("the text is kept in " + Kept().front()), std::string::npos) << outcome.err;
  EXPECT_NE(ReadWholeFile(Kept().front()).find("oops"), std::string::npos);
  EXPECT_EQ(std::filesystem::status(Kept().front()).permissions(),
            std::filesystem::perms::owner_read | std::filesystem::perms::owner_write);
  EXPECT_EQ(Description(), original_);
}

TEST_P(EditImageTest, EditTellsOfAnEditorThatFails) {
  EXPECT_TRUE(Refused(Edit("EDITOR=\"exit 7;\""), 1, "it ended with status 7"));
  EXPECT_TRUE(Refused(Edit("EDITOR=/no/such/editor"), 1, "/no/such/editor"));
  EXPECT_TRUE(Kept().empty());
  EXPECT_EQ(Description(), original_);
}

TEST_P(EditImageTest, EditOffersToEditAgainOnATerminal) {
  // Spoils the text at first, and mends it then.
  WriteWholeFile(files_.Path("editor"),
                 "if grep -q oops $1; then sed -i s/oops/\\<domain/ $1; else sed -i "
                 "'1s/.*/oops>/' $1; fi\n");
  const std::string edit = fmt::format("script -qec \"{} edit {}\" /dev/null", VMIMAGE_PROGRAM, ImagePath());
  const std::string editor = fmt::format("EDITOR=\"sh {}\"", files_.Path("editor"));
  const Outcome no = Shell(editor, "echo n | " + edit);
  EXPECT_EQ(no.status, 1) << no.out;
  EXPECT_NE(no.out.find("Edit it again? [Y/n]"), std::string::npos) << no.out;
  EXPECT_EQ(Kept().size(), 1U);
  EXPECT_EQ(Description(), original_);
  const Outcome yes = Shell(editor, "echo y | " + edit);
  EXPECT_EQ(yes.status, 0) << yes.out;
  EXPECT_TRUE(Description().starts_with("<domain>\n")) << Description();
}

TEST_P(EditImageTest, TheImageIsLockedWhileItIsEdited) {
  const std::string setxml =
      fmt::format("{} setxml {} {}", VMIMAGE_PROGRAM, ImagePath(), FileWith(vmsave::Description(100, "x")));
  const Outcome outcome = Edit(fmt::format("EDITOR=\"{} && \"", setxml));
  EXPECT_TRUE(Refused(outcome, 1, "another program is changing it"));
  EXPECT_EQ(Description(), original_);
}

// However far it came: the image is sound, and has the old description or the new one.
TEST_P(EditImageTest, SetxmlThatIsKilledLeavesASoundImage) {
  const std::string texts[] = {vmsave::Description(3000, "short "), vmsave::Description(60000, "long ")};
  const std::string paths[] = {files_.Path("short.xml"), files_.Path("long.xml")};
  for (std::size_t i = 0; i < 2; ++i) WriteWholeFile(paths[i], texts[i]);
  const std::uintmax_t length = std::filesystem::file_size(ImagePath());
  Clock::duration whole{};
  for (const std::string& path : paths) {
    const auto start = Clock::now();
    ASSERT_TRUE(Succeeded(RunToEnd({VMIMAGE_PROGRAM, "setxml", ImagePath(), path})));
    whole = std::max(whole, Clock::now() - start);
  }
  std::mt19937_64 random(11);
  for (int round = 0; round < 100; ++round) {
    SCOPED_TRACE(round);
    const std::string before = Description();
    const std::size_t next = before == texts[0] ? 1 : 0;
    ProgramRun run({VMIMAGE_PROGRAM, "setxml", ImagePath(), paths[next]});
    std::this_thread::sleep_for(whole * static_cast<int>(random() % 1000) / 1000);
    run.Signal(SIGKILL);
    run.Wait();
    const std::string after = Description();
    ASSERT_TRUE(after == before || after == texts[next]) << after;
    ASSERT_TRUE(IsSound());
  }
  ASSERT_TRUE(Succeeded(RunToEnd({VMIMAGE_PROGRAM, "setxml", ImagePath(), paths[0]})));
  EXPECT_EQ(Description(), texts[0]);
  EXPECT_EQ(std::filesystem::file_size(ImagePath()), length);
  EXPECT_TRUE(IsSound());
}

}  // namespace
}  // namespace vmsave
