// Whole images as seeds.
#pragma once

#include <filesystem>
#include <string>

namespace vmsave {

// Images of all kinds, of a guest in this process; interrupted edits.
void AddOwnImages(const std::filesystem::path& corpus);

// A file that QEMU or libvirt wrote. Throws where it is not an image.
void AddRealImage(const std::filesystem::path& corpus, const std::string& path);

}  // namespace vmsave
