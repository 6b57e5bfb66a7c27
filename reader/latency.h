// How long things took, without keeping each.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <chrono>
#include <cstdint>

namespace vmsave {

// Counts durations in buckets an eighth of an octave wide. Not thread-safe.
class LatencyCount {
 public:
  using Duration = std::chrono::microseconds;

  void Add(Duration duration) {
    const auto us = static_cast<std::uint64_t>(std::max<Duration::rep>(duration.count(), 0));
    ++buckets_[BucketOf(us)];
    ++count_;
    most_ = std::max(most_, duration);
  }

  std::uint64_t count() const { return count_; }
  Duration most() const { return most_; }

  // No more than `share` (0..1) of all took longer; at most an eighth too long. 0 where there are none.
  Duration Quantile(double share) const {
    const auto wanted = static_cast<std::uint64_t>(static_cast<double>(count_) * share);
    std::uint64_t seen = 0;
    for (std::size_t bucket = 0; bucket < buckets_.size(); ++bucket) {
      seen += buckets_[bucket];
      if (seen > wanted || (seen == count_ && count_ > 0)) return std::min(EndOf(bucket), most_);
    }
    return Duration{0};
  }

 private:
  static constexpr std::size_t kParts = 8;
  static constexpr std::size_t kOctaves = 40;

  static std::size_t BucketOf(std::uint64_t us) {
    if (us < kParts) return us;
    const auto octave = static_cast<std::size_t>(std::bit_width(us)) - 4;  // of 8..15: 0
    return std::min((octave + 1) * kParts + (us >> octave) % kParts, kOctaves * kParts - 1);
  }
  static Duration EndOf(std::size_t bucket) {
    if (bucket < kParts) return Duration{static_cast<Duration::rep>(bucket)};
    const std::size_t octave = bucket / kParts - 1;
    return Duration{static_cast<Duration::rep>(((kParts + bucket % kParts + 1) << octave) - 1)};
  }

  std::array<std::uint64_t, kOctaves * kParts> buckets_{};
  std::uint64_t count_ = 0;
  Duration most_{0};
};

}  // namespace vmsave
