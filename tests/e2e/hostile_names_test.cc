// Names in an image that were made up to do something to the operator's terminal, or are no text at all.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "format/qemu_stream.h"
#include "tests/e2e/end_to_end_test.h"
#include "tests/format/byte_strings.h"
#include "tests/format/golden.h"
#include "writer/version2_file.h"

namespace vmsave {
namespace {

// Sets the title, clears the screen with a control character of one byte, colours with one of two, and ends within a
// character.
constexpr const char* kName =
    "a\x1b]0;title\x07\x9b"
    "2J\xc2\x9b"
    "31mz\xe2\x82";
constexpr const char* kNameShown = R"(a\x1b]0;title\x07\x9b2J\xc2\x9b31mz\xe2\x82)";

bool IsForTerminals(const std::string& text) {
  const auto acts = [](char c) { return (static_cast<unsigned char>(c) < 0x20 && c != '\n') || c == '\x7f'; };
  return std::ranges::none_of(text, acts) && text.find('\x9b') == std::string::npos;
}

class HostileNamesTest : public EndToEndTest {
 protected:
  void SetUp() override {
    const StreamFrame frame{kName, 2, false};
    ByteWriter image;
    image.Append(EncodeBeforeStream(fmt::format("<domain>\n<name>{}</name></domain>", kName), true));
    AppendLegacyHead(image, frame, std::array{BlockShape{kName, kPageSize}});
    AppendLegacyTail(image, frame, Hex(golden::kDeviceState));
    Bytes bytes = image.Take();
    Place(bytes, 0, EncodeSaveMagic(ImageState::kComplete));
    WriteWholeFile(image_, AsText(bytes));
  }

  // Shows the name, and nothing that acts.
  static void ExpectShown(const Outcome& outcome) {
    const std::string text = outcome.out + outcome.err;
    EXPECT_TRUE(IsForTerminals(text)) << text;
    EXPECT_NE(text.find(kNameShown), std::string::npos) << text;
  }

  const std::string image_ = files_.Path("hostile.sav");
};

TEST_F(HostileNamesTest, AreShownWithoutActing) {
  ExpectShown(RunToEnd({VMIMAGE_PROGRAM, "info", image_}));
  ExpectShown(RunToEnd({VMIMAGE_PROGRAM, "extract", "--block", "pc.ram", "--output", ImagePath(), image_}));
  ExpectShown(RunToEnd({VMRESTORE_PROGRAM, image_, "--", "/nowhere/qemu", "-machine", "pc-i440fx-7.2"}));
}

TEST_F(HostileNamesTest, OfFilesAreShownWithoutActing) {
  const std::string file = files_.Path(kName);
  ExpectShown(RunToEnd({VMIMAGE_PROGRAM, "verify", file}));
  WriteWholeFile(file, ReadWholeFile(image_));
  ExpectShown(RunToEnd({VMIMAGE_PROGRAM, "verify", file}));
  ExpectShown(RunToEnd({VMIMAGE_PROGRAM, "convert", "--to", "3", image_, ImagePath(kName)}));
}

TEST_F(HostileNamesTest, AreTextForScripts) {
  const Outcome info = RunToEnd({VMIMAGE_PROGRAM, "info", "--json", image_});
  ASSERT_TRUE(Succeeded(info));
  EXPECT_TRUE(nlohmann::json::accept(info.out)) << info.out;
  const Outcome verify = RunToEnd({VMIMAGE_PROGRAM, "verify", "--progress", "json", files_.Path(kName)});
  EXPECT_TRUE(nlohmann::json::accept(verify.out)) << verify.out;
}

TEST_F(HostileNamesTest, InADescriptionDoNotActOnATerminalAndAreKeptInAFile) {
  const std::string command = fmt::format("'{}' dumpxml '{}'", VMIMAGE_PROGRAM, image_);
  EXPECT_EQ(RunToEnd({"sh", "-c", command}).out, fmt::format("<domain>\n<name>{}</name></domain>", kName));
  const Outcome on_terminal = RunToEnd({"script", "--quiet", "--return", "--command", command, "/dev/null"});
  ASSERT_TRUE(Succeeded(on_terminal));
  EXPECT_EQ(on_terminal.out, fmt::format("<domain>\r\n<name>{}</name></domain>", kNameShown));
}

}  // namespace
}  // namespace vmsave
