#include "qemu/image_mark.h"

#include <fmt/format.h>

#include "reader/image_identity.h"

namespace vmsave {
namespace {

constexpr std::string_view kName = "vmsave-image";

std::string MarkOf(const Image& image) {
  return fmt::format("{:016x}", ImageIdentity(image));
}

[[noreturn]] void RefuseOther(const Image& image) {
  throw Error(ErrorKind::kFailed, fmt::format("cannot go on from {}", image.path()),
              "the guest was begun from another save", "name the image that it was restored from, or a copy of it");
}

std::optional<std::string> ReadMark(QmpClient& qmp) {
  try {
    const QmpClient::Json mark =
        qmp.Execute("qom-get", {{"path", fmt::format("/objects/{}", kName)}, {"property", "data"}});
    return mark.is_string() ? std::optional(mark.get<std::string>()) : std::nullopt;
  } catch (const QmpError&) {
    return std::nullopt;
  }
}

}  // namespace

// An object that keeps a text and does nothing else (QEMU qapi/crypto.json, SecretProperties); what it keeps here is no
// secret.
void MarkImage(QmpClient& qmp, const Image& image) {
  try {
    qmp.Execute("object-add", {{"qom-type", "secret"}, {"id", kName}, {"data", MarkOf(image)}});
  } catch (const QmpError&) {
    return;
  }
}

void CheckImageMark(QmpClient& qmp, const Image& image) {
  const std::optional<std::string> mark = ReadMark(qmp);
  if (mark && *mark != MarkOf(image)) RefuseOther(image);
}

void CheckIsOf(const Image& image, std::uint64_t identity) {
  if (ImageIdentity(image) != identity) RefuseOther(image);
}

void RemoveImageMark(QmpClient& qmp) {
  try {
    qmp.Execute("object-del", {{"id", kName}});
  } catch (const QmpError&) {
    return;
  }
}

}  // namespace vmsave
