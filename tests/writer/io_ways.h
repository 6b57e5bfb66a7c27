// The ways to write and read a file that every test of a writer or reader goes through: engine, page cache, channels.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <tuple>

#include "io/direct_alignment.h"
#include "io/io_engine.h"
#include "io/new_file.h"
#include "tests/scratch_directory.h"

namespace vmsave {

using EngineAndCache = std::tuple<EngineKind, CacheUse>;
using IoWay = std::tuple<EngineKind, CacheUse, unsigned>;  // the last one: channels

inline const auto kAllEnginesAndCaches = testing::Combine(testing::Values(EngineKind::kSync, EngineKind::kUring),
                                                          testing::Values(CacheUse::kPageCache, CacheUse::kBypass));

inline const auto kAllIoWays =
    testing::Combine(testing::Values(EngineKind::kSync, EngineKind::kUring),
                     testing::Values(CacheUse::kPageCache, CacheUse::kBypass), testing::Values(1U, 8U));

inline std::string NameOf(EngineKind engine, CacheUse cache) {
  return std::string(EngineName(engine)) + (cache == CacheUse::kBypass ? "Direct" : "Buffered");
}

inline std::string EngineAndCacheName(const testing::TestParamInfo<EngineAndCache>& info) {
  return std::apply(NameOf, info.param);
}

inline std::string IoWayName(const testing::TestParamInfo<IoWay>& info) {
  const auto [engine, cache, channels] = info.param;
  return NameOf(engine, cache) + std::to_string(channels);
}

// Why this machine cannot go that way; empty where it can.
inline std::string ReasonAgainst(const IoWay& way, const ScratchDirectory& directory) {
  try {
    ChooseEngine(std::get<EngineKind>(way));
    const NewFile probe(directory.Path("probe"), Replace::kNo, std::get<CacheUse>(way));
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

}  // namespace vmsave
