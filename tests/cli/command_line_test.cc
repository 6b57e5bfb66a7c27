#include "cli/command_line.h"

#include <gtest/gtest.h>

namespace vmsave {
namespace {

class CommandLineTest : public testing::Test {
 protected:
  CommandLineTest() : app_(MakeApp("program", "Does what a program does.", {"[OPTIONS] --socket PATH IMAGE"})) {
    app_->add_option("IMAGE", image_, "the file to write");
    app_->add_option("--socket", socket_, "Where the guest is")->type_name("PATH");
    app_->add_option("--channels", channels_, "How many")->check(NumberWithin(1, 256))->type_name("N");
    app_->add_option("--kind", kind_, "Of what kind")->check(OneOf({"small", "large"}))->type_name("KIND");
    app_->add_flag("--force", force_,
                   "Replace, whatever is there and to whomever it may belong, without asking anybody");
  }

  bool Parse(std::vector<const char*> words) {
    words.insert(words.begin(), "program");
    return ParseOptions(*app_, static_cast<int>(words.size()), words.data());
  }

  std::string Refusal(const std::vector<const char*>& words) {
    try {
      Parse(words);
      return "(taken)";
    } catch (const UsageError& error) {
      return error.what();
    }
  }

  std::unique_ptr<CLI::App> app_;
  std::string image_;
  std::string socket_;
  unsigned channels_ = 0;
  std::string kind_;
  bool force_ = false;
};

TEST_F(CommandLineTest, HelpIsWrittenAsAManualPage) {
  EXPECT_EQ(app_->help(),
            "Usage: program [OPTIONS] --socket PATH IMAGE\n"
            "\n"
            "Does what a program does.\n"
            "\n"
            "Options:\n"
            "  --socket PATH  Where the guest is\n"
            "  --channels N   How many\n"
            "  --kind KIND    Of what kind\n"
            "  --force        Replace, whatever is there and to whomever it may belong,\n"
            "                 without asking anybody\n"
            "  -h, --help     Print this and exit\n"
            "  --version      Print the version and exit\n"
            "\n"
            "Exit status: 0 done, 1 failed, 2 wrong usage, 3 damaged or refused image, 130\n"
            "interrupted.\n");
}

TEST_F(CommandLineTest, HelpOfACommandIsItsOwn) {
  const auto app = MakeApp("program", "Does one of two things.", {"first IMAGE", "second IMAGE"});
  AddCommand(*app, "first", "Does the first", "IMAGE");
  CLI::App* second = AddCommand(*app, "second", "Does the second", "[OPTIONS] IMAGE");
  EXPECT_EQ(app->help().find("Usage: program first IMAGE\n       program second IMAGE\n"), 0U) << app->help();
  EXPECT_NE(app->help().find("\nCommands:\n  first   Does the first\n  second  Does the second\n"), std::string::npos);
  EXPECT_EQ(second->help("program").find("Usage: program second [OPTIONS] IMAGE\n\nDoes the second\n"), 0U);
}

TEST_F(CommandLineTest, GoodOnesAreTaken) {
  EXPECT_TRUE(Parse({"--socket", "vm.qmp", "--kind=large", "--channels", "8", "--force", "vm.sav"}));
  EXPECT_EQ(socket_, "vm.qmp");
  EXPECT_EQ(kind_, "large");
  EXPECT_EQ(channels_, 8U);
  EXPECT_TRUE(force_);
  EXPECT_EQ(image_, "vm.sav");
}

TEST_F(CommandLineTest, LastOfTwoCounts) {
  EXPECT_TRUE(Parse({"--channels", "8", "--force", "vm.sav", "--channels", "2", "--force"}));
  EXPECT_EQ(channels_, 2U);
  EXPECT_TRUE(force_);
}

TEST_F(CommandLineTest, ImageMayBeginWithADashBehindTwoDashes) {
  EXPECT_TRUE(Parse({"--force", "--", "--odd.sav"}));
  EXPECT_EQ(image_, "--odd.sav");
}

TEST_F(CommandLineTest, WrongOnesAreRefusedInWords) {
  EXPECT_EQ(Refusal({}), "IMAGE is missing: the file to write");
  EXPECT_EQ(Refusal({"--socket"}), "--socket: its value is missing");
  EXPECT_EQ(Refusal({"vm.sav", "--sockets", "vm.qmp"}), "unknown option: --sockets");
  EXPECT_EQ(Refusal({"-q", "vm.sav"}), "unknown option: -q");
  EXPECT_EQ(Refusal({"vm.sav", "other.sav"}), "unexpected argument: other.sav");
  EXPECT_EQ(Refusal({"--force=yes", "vm.sav"}), "--force: it takes no value");
}

// Its value stands behind a "=": "--fast little vm.sav" has two images.
TEST_F(CommandLineTest, ValueOfAFlagThatIsTakenForAnArgumentIsHintedAt) {
  std::string fast;
  app_->add_flag("--fast{much}", fast)->check(OneOf({"much", "little"}))->disable_flag_override(false);
  EXPECT_EQ(Refusal({"--fast", "little", "vm.sav"}), "unexpected argument: vm.sav (did you mean --fast=little?)");
  EXPECT_EQ(Refusal({"vm.sav", "--fast", "much"}), "unexpected argument: much (did you mean --fast=much?)");
  EXPECT_EQ(Refusal({"--fast", "vm.sav", "other.sav"}), "unexpected argument: other.sav");
  EXPECT_EQ(Refusal({"--fast", "little"}), "(taken)") << "an image may have that name";
  EXPECT_EQ(image_, "little");
}

TEST_F(CommandLineTest, BadValuesAreQuoted) {
  EXPECT_EQ(Refusal({"--kind", "medium", "vm.sav"}), "--kind: \"medium\" is none of small, large");
  for (const char* number : {"0", "257", "-1", "8x", "", "99999999999999999999"}) {
    EXPECT_EQ(Refusal({"--channels", number, "vm.sav"}),
              std::string("--channels: \"") + number + "\" is no number from 1 to 256");
  }
}

TEST_F(CommandLineTest, CommandMustBeOneThatIsKnown) {
  AddCommand(*app_, "info", "Tells", "IMAGE");
  AddCommand(*app_, "verify", "Checks", "IMAGE");
  app_->remove_option(app_->get_option("IMAGE"));
  EXPECT_EQ(Refusal({}), "no command is given: it is one of info, verify");
  EXPECT_EQ(Refusal({"guess", "vm.sav"}), "unknown command: guess");
  EXPECT_EQ(Refusal({"info", "verify"}), "unexpected argument: verify");
}

TEST_F(CommandLineTest, OptionsThatExcludeEachOtherAreNamed) {
  ASSERT_TRUE(Parse({"--kind", "small", "--force", "vm.sav"}));
  EXPECT_NO_THROW(RefuseTogether(*app_, {"--socket", "--force"}));
  try {
    RefuseTogether(*app_, {"--kind", "--force"});
    ADD_FAILURE() << "both were taken";
  } catch (const UsageError& error) {
    EXPECT_STREQ(error.what(), "--kind and --force: only one of them can be given");
  }
}

}  // namespace
}  // namespace vmsave
