#include "format/printable.h"

#include <gtest/gtest.h>

namespace vmsave {
namespace {

TEST(PrintableTest, LeavesTextAsItIs) {
  for (const char* text : {"", "pc.ram", "cannot open /a b\\c", "größe", "保存", "\xf0\x9f\x92\xbe", "\u00a0"}) {
    EXPECT_EQ(Printable(text), text);
  }
}

TEST(PrintableTest, NamesControlCharacters) {
  EXPECT_EQ(Printable("\x1b[2J\x1b]0;title\x07"), "\\x1b[2J\\x1b]0;title\\x07");
  EXPECT_EQ(Printable("a\nb\tc\rd\x7f"), "a\\nb\\tc\\x0dd\\x7f");
  EXPECT_EQ(Printable(std::string_view("a\0b", 3)), "a\\x00b");
}

// U+009B does what ESC [ does.
TEST(PrintableTest, NamesControlCharactersOfMoreThanOneByte) {
  EXPECT_EQ(Printable("\u009b2J"), "\\xc2\\x9b2J");
  EXPECT_EQ(Printable("\u0080\u009f"), "\\xc2\\x80\\xc2\\x9f");
}

TEST(PrintableTest, NamesBytesThatAreNoUtf8) {
  EXPECT_EQ(Printable("\x9b"), "\\x9b");  // continues nothing
  EXPECT_EQ(Printable("a\xff"
                      "b"),
            "a\\xffb");                                              // never there
  EXPECT_EQ(Printable("\xc3"), "\\xc3");                             // cut off
  EXPECT_EQ(Printable("\xe2\x82("), "\\xe2\\x82(");                  // not continued
  EXPECT_EQ(Printable("\xc0\x9b"), "\\xc0\\x9b");                    // longer than need be
  EXPECT_EQ(Printable("\xe0\x82\x9b"), "\\xe0\\x82\\x9b");           // likewise
  EXPECT_EQ(Printable("\xed\xa0\x80"), "\\xed\\xa0\\x80");           // a surrogate
  EXPECT_EQ(Printable("\xf4\x90\x80\x80"), "\\xf4\\x90\\x80\\x80");  // behind the last character
}

TEST(PrintableTest, LeavesWhatItHasMadeAsItIs) {
  const std::string once = Printable("\x1b\xff\n\\x1b");
  EXPECT_EQ(Printable(once), once);
}

}  // namespace
}  // namespace vmsave
