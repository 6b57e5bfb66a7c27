#include "format/error.h"

#include <gtest/gtest.h>

#include <cerrno>

namespace vmsave {
namespace {

TEST(ErrorTest, SaysWhatFailedAndWhyAndWhatToDo) {
  EXPECT_STREQ(Error(ErrorKind::kFailed, "cannot write a", "no room").what(), "cannot write a: no room");
  EXPECT_STREQ(Error(ErrorKind::kFailed, "cannot write a", "no room", "free some").what(),
               "cannot write a: no room (free some)");
}

TEST(ErrorTest, TellsWhyByItself) {
  const Error error(ErrorKind::kFailed, "cannot read a: b (c)", "d: e (f)", "g: h (i)");
  EXPECT_EQ(error.why(), "d: e (f)");
  const Error copy = error;
  EXPECT_EQ(copy.why(), "d: e (f)");
}

TEST(ErrorTest, TellsWhyByTheTextOfAnErrno) {
  EXPECT_EQ(Error::FromErrno("cannot read a", EIO, "look at the disk").why(), "Input/output error");
}

// Names come from images and from peers.
TEST(ErrorTest, LetsNoControlCharacterThrough) {
  const Error error(ErrorKind::kDamaged, "cannot use \x1b[2J", "its name is \n", "\x7f");
  EXPECT_STREQ(error.what(), "cannot use \\x1b[2J: its name is \\n (\\x7f)");
  EXPECT_EQ(error.why(), "its name is \\n");
}

}  // namespace
}  // namespace vmsave
