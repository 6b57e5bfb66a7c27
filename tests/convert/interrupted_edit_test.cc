// Edits that stop at any place: the files that a crash can leave behind, read and edited again.
#include <gtest/gtest.h>

#include <random>
#include <set>

#include "reader/stream_sender.h"
#include "reader/verify.h"
#include "tests/convert/edited_images.h"

namespace vmsave {
namespace {

const std::string kNew = DescriptionOf(60000, 'n');

void Do(const std::string& path, const EditStep& step) {
  if (step.kind == EditStep::Kind::kTruncate) return Truncate(path, step.at.value());
  Overwrite(path, step.at, step.bytes);
}

// Keeps all that was sent.
class CollectingSink : public ByteSink {
 public:
  using ByteSink::Write;
  void Write(std::span<const iovec> pieces) override {
    for (const iovec& piece : pieces) {
      const auto* bytes = static_cast<const std::byte*>(piece.iov_base);
      sent.insert(sent.end(), bytes, bytes + piece.iov_len);
    }
  }
  Bytes sent;
};

class InterruptedEditTest : public testing::TestWithParam<Kind> {
 protected:
  InterruptedEditTest() {
    WriteKind(path_, SmallestGuest(), GetParam());
    whole_ = ReadWholeFile(path_);
    old_ = Image(path_).description();
    stream_ = SentStream();
    const ImageHead head = *ReadImageHead(OpenFile(path_, O_RDONLY));
    after_ = WithDescription(head.before_stream, head.header, kNew);
    const EditedImage edited = EditedImage::Of(head.header, after_, head.image_length);
    steps_ = PlanEditRecord(edited);
    record_ = steps_.size() - 1;
    for (EditStep& step : PlanEditCompletion(edited)) steps_.push_back(std::move(step));
  }

  // What everything that reads the image sees.
  void ExpectImageWith(const std::string& description) const {
    const Image image(path_);
    ASSERT_EQ(image.description(), description);
    ASSERT_EQ(image.header()->data_length, after_.size() - kSaveHeaderBytes);
    ASSERT_EQ(image.file_length().value(), whole_.size());
    ASSERT_EQ(FindMetadataDamage(image), std::nullopt);
    if (image.has_fixed_offsets()) {
      ASSERT_TRUE(std::ranges::equal(image.device_state(), SmallestGuest().image().device_state));
    } else {
      ASSERT_EQ(image.stream_end().value(), whole_.size());
    }
  }

  // Everything of it, and what a QEMU gets of it.
  void ExpectVerified() const {
    Progress progress;
    ASSERT_TRUE(Verify(Image(path_), {}, progress, Interrupt()).damage.empty());
    ASSERT_TRUE(SentStream() == stream_);
  }

  Bytes SentStream() const {
    CollectingSink sink;
    Progress progress;
    SendImage(Image(path_), sink, {}, PageChecks::kOn, progress, Interrupt());
    return sink.sent;
  }

  // The next edit leaves the file as if nothing had happened before.
  void ExpectEditable(const std::string& description) {
    const Bytes crashed = ReadWholeFile(path_);
    ASSERT_EQ(DescriptionEdit(path_).description(), description);
    ASSERT_TRUE(DescriptionEdit(path_).Replace("<domain>third</domain>", "third.xml"));
    const ImageHead head = *ReadImageHead(OpenFile(path_, O_RDONLY));
    ASSERT_EQ(head.edit, EditTrace::kNone);
    Bytes expected = whole_;
    Place(expected, 0, WithDescription(std::span(whole_).first(after_.size()), head.header, "<domain>third</domain>"));
    ASSERT_TRUE(ReadWholeFile(path_) == expected);
    WriteWholeFile(path_, crashed);
  }

  const std::string& DescriptionDuring(std::size_t step) const { return step <= record_ ? old_ : kNew; }

  void DoStepsBefore(std::size_t count) const {
    WriteWholeFile(path_, whole_);
    for (std::size_t i = 0; i < count; ++i) Do(path_, steps_[i]);
  }

  ScratchDirectory directory_;
  std::string path_ = directory_.Path("vm.sav");
  Bytes whole_;
  std::string old_;
  Bytes stream_;
  Bytes after_;
  std::vector<EditStep> steps_;
  std::size_t record_ = 0;  // the step that is the first to make a difference, once it is done
  std::mt19937_64 random_{7};
};

INSTANTIATE_TEST_SUITE_P(Kinds, InterruptedEditTest, testing::ValuesIn(kAllKinds),
                         [](const auto& shown) { return KindName(shown.param); });

TEST_P(InterruptedEditTest, LeavesOldOrNewBetweenTheSteps) {
  for (std::size_t done = 0; done <= steps_.size(); ++done) {
    SCOPED_TRACE(done);
    DoStepsBefore(done);
    ExpectImageWith(DescriptionDuring(done));
    ExpectVerified();
    ExpectEditable(DescriptionDuring(done));
    if (HasFatalFailure()) return;
  }
  EXPECT_EQ(Image(path_).edit_trace(), EditTrace::kNone);
}

// The first and last bytes of what is written, those around each page of the file, and some others.
std::set<std::size_t> Places(const EditStep& step, std::mt19937_64& random) {
  std::set<std::size_t> places;
  const std::size_t length = step.bytes.size();
  for (std::size_t i = 0; i <= std::min<std::size_t>(length, 120); ++i) places.insert({i, length - i});
  for (std::size_t page = 0; page < length + kPageBytes; page += kPageBytes) {
    const std::size_t edge = page - std::min(page, step.at.value() % kPageBytes);
    places.insert({edge, edge + 1, edge - std::min<std::size_t>(edge, 1)});
  }
  for (int i = 0; i < 100; ++i) places.insert(random() % length);
  places.erase(places.upper_bound(length), places.end());
  return places;
}

// The file's first and only writer is killed: it has what was written up to there.
TEST_P(InterruptedEditTest, LeavesOldOrNewAtEveryByteOfAStep) {
  for (std::size_t number = 0; number < steps_.size(); ++number) {
    const EditStep& step = steps_[number];
    if (step.kind == EditStep::Kind::kTruncate) continue;
    DoStepsBefore(number);
    for (const std::size_t length : Places(step, random_)) {
      SCOPED_TRACE("step " + std::to_string(number) + ", byte " + std::to_string(length));
      Overwrite(path_, step.at, std::span(step.bytes).first(length));
      const bool whole = length == step.bytes.size();
      ExpectImageWith(DescriptionDuring(number + (whole ? 1 : 0)));
      // A part of a note, which no disk leaves, stays behind in words that nobody reads.
      const bool is_note = step.bytes.size() == kEditNoteBytes;
      if (random_() % 64 == 0 && (whole || !is_note)) ExpectEditable(DescriptionDuring(number + (whole ? 1 : 0)));
      if (HasFatalFailure()) return;
    }
  }
}

// A host that crashes has written any of the pages, and may have made the file longer without them.
TEST_P(InterruptedEditTest, LeavesOldOrNewWithAnyPagesOfAStepWritten) {
  for (std::size_t number = 0; number < steps_.size(); ++number) {
    const EditStep& step = steps_[number];
    if (step.bytes.size() <= kPageBytes) continue;  // what fits into a sector is written at once
    for (int round = 0; round < 40; ++round) {
      SCOPED_TRACE("step " + std::to_string(number) + ", round " + std::to_string(round));
      DoStepsBefore(number);
      Truncate(path_, std::max(FileLength(OpenFile(path_, O_RDONLY)).value(), step.at.value() + step.bytes.size()));
      bool all = true;
      for (std::size_t page = 0; page < step.bytes.size(); page += kPageBytes) {
        const std::size_t length = std::min<std::size_t>(kPageBytes, step.bytes.size() - page);
        if (round == 0 || random_() % 4 < static_cast<unsigned>(round % 4)) {
          all = false;
        } else {
          Overwrite(path_, step.at + ByteCount{page}, std::span(step.bytes).subspan(page, length));
        }
      }
      ExpectImageWith(DescriptionDuring(number + (all ? 1 : 0)));
      if (round % 8 == 0) ExpectEditable(DescriptionDuring(number + (all ? 1 : 0)));
      if (HasFatalFailure()) return;
    }
  }
}

// The same description again, as `vmimage dumpxml IMAGE | vmimage setxml IMAGE -` gives it.
TEST_P(InterruptedEditTest, IsFinishedByAnEditThatChangesNothing) {
  for (std::size_t done = record_; done < steps_.size(); ++done) {
    DoStepsBefore(done);
    const std::string description = Image(path_).description();
    const bool trace = Image(path_).edit_trace() != EditTrace::kNone;
    EXPECT_EQ(DescriptionEdit(path_).Replace(description, "same.xml"), trace);
    EXPECT_EQ(ReadWholeFile(path_).size(), whole_.size());
    EXPECT_EQ(Image(path_).edit_trace(), EditTrace::kNone);
    EXPECT_EQ(Image(path_).description(), description);
  }
}

TEST_P(InterruptedEditTest, PartOfARecordIsTakenAwayByAnEditThatChangesNothing) {
  DoStepsBefore(record_);
  Overwrite(path_, steps_[record_].at, std::span(steps_[record_].bytes).first(2 * kPageBytes));

  EXPECT_TRUE(DescriptionEdit(path_).Replace(old_, "same.xml"));

  EXPECT_TRUE(ReadWholeFile(path_) == whole_);
}

// By another way than setxml: what counts is what is converted.
TEST_P(InterruptedEditTest, IsFinishedByAConversion) {
  DoStepsBefore(record_ + 1);
  Overwrite(path_, FileOffset{0}, std::span(after_).first(kPageBytes));
  if (GetParam() != Kind::kVersion3 && GetParam() != Kind::kVersion3WithoutChecksums) {
    Overwrite(path_, kEditNoteOffset, EncodeEditNote(ByteCount{whole_.size()}));
  }
  ConvertOptions options;
  options.to = TargetKind::kVersion3;
  Progress progress;
  const std::string copy = directory_.Path("copy.sav");
  {
    NewFile target(copy, Replace::kNo, CacheUse::kPageCache);
    Convert(Image(path_), target, options, progress, Interrupt());
    target.Publish();
  }
  EXPECT_EQ(Image(copy).description(), kNew);
  VerifyMetadata(Image(copy));
  if (!Image(path_).has_fixed_offsets()) return;
  for (const TargetKind kind : {TargetKind::kLibvirtSparse, TargetKind::kVersion3}) {
    options.to = kind;
    ConvertInPlace(path_, options, progress, Interrupt());
    EXPECT_EQ(Image(path_).edit_trace(), EditTrace::kNone);
    EXPECT_EQ(Image(path_).description(), kNew);
    VerifyMetadata(Image(path_));
  }
}

TEST_P(InterruptedEditTest, RecordOfAnotherImageIsRefused) {
  DoStepsBefore(record_);
  Bytes other = after_;
  other[21] ^= std::byte{1};  // data_len
  other[22] ^= std::byte{1};
  Overwrite(path_, EditRecordOffset(ByteCount{whole_.size()}), EncodeEditRecord(other, ByteCount{whole_.size()}));
  ExpectDamaged([this] { Image image(path_); }, "of another image");
}

// A stream's end counts, not the note's: the file was cut after the edit had begun.
// Or every edit would leave the image as if it were being edited.
TEST_P(InterruptedEditTest, RecordOfAnImageThatIsBeingEditedIsRefused) {
  DoStepsBefore(record_);
  if (ReadImageHead(OpenFile(path_, O_RDONLY))->header.extension) GTEST_SKIP() << "its header tells its length";
  Bytes other = after_;
  std::ranges::copy(EncodeEditNote(ByteCount{whole_.size()}), other.begin() + kEditNoteOffset.value());
  Overwrite(path_, EditRecordOffset(ByteCount{whole_.size()}), EncodeEditRecord(other, ByteCount{whole_.size()}));
  ExpectDamaged([this] { Image image(path_); }, "of another image");
}

TEST_P(InterruptedEditTest, ACutImageIsStillNoticed) {
  DoStepsBefore(1);
  Truncate(path_, whole_.size() - 1);
  ExpectDamaged([this] { VerifyMetadata(Image(path_)); }, "");
}

}  // namespace
}  // namespace vmsave
