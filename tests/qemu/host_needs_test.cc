#include "qemu/host_needs.h"

#include <gtest/gtest.h>

namespace vmsave {
namespace {

// "7.2-", "2.4-10.1", "?"
std::string Releases(std::string_view machine) {
  const MachineReleases releases = ReleasesWith(machine);
  if (!releases.since) return "?";
  return AsText(*releases.since) + "-" + (releases.removed_in ? AsText(*releases.removed_in) : "");
}

TEST(MachineReleasesTest, AreThoseFromItsOwnVersionOn) {
  EXPECT_EQ(Releases("pc-i440fx-7.2"), "7.2-");
  EXPECT_EQ(Releases("pc-q35-9.1"), "9.1-");
  EXPECT_EQ(Releases("pc-i440fx-10.0"), "10.0-");
}

TEST(MachineReleasesTest, EndWhereQemuRemovedIt) {
  EXPECT_EQ(Releases("pc-0.11"), "0.11-4.0");
  EXPECT_EQ(Releases("pc-0.15"), "0.15-5.0");
  EXPECT_EQ(Releases("pc-1.3"), "1.3-6.0");
  EXPECT_EQ(Releases("pc-i440fx-1.4"), "1.4-8.2");
  EXPECT_EQ(Releases("pc-i440fx-1.7"), "1.7-8.2");
  EXPECT_EQ(Releases("pc-i440fx-2.3"), "2.3-9.1");
  EXPECT_EQ(Releases("pc-q35-2.3"), "2.3-2.6");
}

TEST(MachineReleasesTest, EndAfterSixYearsFromQemu10_1On) {
  EXPECT_EQ(Releases("pc-i440fx-2.4"), "2.4-10.1");
  EXPECT_EQ(Releases("pc-i440fx-2.12"), "2.12-10.1");
  EXPECT_EQ(Releases("pc-q35-4.0.1"), "4.0-10.1");
  EXPECT_EQ(Releases("pc-i440fx-4.1"), "4.1-10.1");
  EXPECT_EQ(Releases("pc-q35-4.2"), "4.2-10.2");
  EXPECT_EQ(Releases("pc-q35-5.1"), "5.1-11.1");
  EXPECT_EQ(Releases("pc-q35-5.2"), "5.2-");  // foreseen for 11.2, which is not out
}

TEST(MachineReleasesTest, AreNotToldOfADistributionsTypeOrOneWithoutAVersion) {
  for (const char* const machine :
       {"pc-i440fx-rhel7.6.0", "pc-q35-jammy", "pc-i440fx-1.5-saucy", "pc-1.0-qemu-kvm", "microvm", "isapc", "pc",
        "q35", "pc-", "pc-i440fx-", "pc-q35-7", "pc-q35-7.", "pc-q35-7.2.", "pc-q35-99999999999.1", "synthetic", ""}) {
    EXPECT_EQ(Releases(machine), "?") << machine;
  }
}

std::string Text(const Readers& readers) {
  if (readers.none) return "none";
  return readers.since ? AsText(*readers.since) : "any";
}

TEST(ReadersTest, QemuAloneNeedsMappedRamForFixedOffsets) {
  EXPECT_EQ(Text(QemuAlone(ImageKind::kStream)), "any");
  EXPECT_EQ(Text(QemuAlone(ImageKind::kBareStream)), "any");
  EXPECT_EQ(Text(QemuAlone(ImageKind::kCompressed)), "none");
  EXPECT_EQ(Text(QemuAlone(ImageKind::kVersion3)), "9.0");
  EXPECT_EQ(Text(QemuAlone(ImageKind::kLibvirtSparse)), "9.0");
  EXPECT_EQ(Text(QemuAlone(ImageKind::kBareMappedRam)), "9.0");
}

TEST(ReadersTest, VirshReadsWhatHasItsHeaderAndAFormatThatItKnows) {
  EXPECT_EQ(Text(Virsh(ImageKind::kStream, BodyFormat::kRaw)), "any");
  for (const BodyFormat format : {BodyFormat::kGzip, BodyFormat::kBzip2, BodyFormat::kXz, BodyFormat::kLzop}) {
    EXPECT_EQ(Text(Virsh(ImageKind::kCompressed, format)), "any");
  }
  EXPECT_EQ(Text(Virsh(ImageKind::kCompressed, BodyFormat::kZstd)), "11.2");
  EXPECT_EQ(Text(Virsh(ImageKind::kLibvirtSparse, BodyFormat::kSparse)), "11.2");
  EXPECT_EQ(Text(Virsh(ImageKind::kVersion3, BodyFormat::kSparse)), "none");
  EXPECT_EQ(Text(Virsh(ImageKind::kBareStream, BodyFormat::kRaw)), "none");
  EXPECT_EQ(Text(Virsh(ImageKind::kBareMappedRam, BodyFormat::kRaw)), "none");
}

}  // namespace
}  // namespace vmsave
