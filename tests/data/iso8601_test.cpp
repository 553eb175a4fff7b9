#include "verne/data/iso8601.hpp"

#include <gtest/gtest.h>

namespace verne {
namespace {

TEST(Iso8601, DatesAndTimesAreSecondsSince1970) {
  EXPECT_EQ(parse_iso8601("1970-01-01"), 0.0L);
  EXPECT_EQ(parse_iso8601("2000-03-01"), 951868800.0L);
  EXPECT_EQ(parse_iso8601("20000301"), 951868800.0L);
  EXPECT_EQ(parse_iso8601("2024-02-29T12:30:05Z"), 1709209805.0L);
  EXPECT_EQ(parse_iso8601("2024-02-29 12:30:05.25"), 1709209805.25L);
  EXPECT_EQ(parse_iso8601("20240229T123005Z"), 1709209805.0L);
  EXPECT_EQ(parse_iso8601("2024-02-29T12:30"), 1709209800.0L);
  EXPECT_EQ(parse_iso8601("2024-02-29T12"), 1709208000.0L);
  EXPECT_EQ(parse_iso8601("2024"), 1704067200.0L);
  EXPECT_EQ(parse_iso8601("2024-02"), 1706745600.0L);
  EXPECT_EQ(parse_iso8601("1969-12-31T23:59:59Z"), -1.0L);
}

TEST(Iso8601, ZonesShiftToUtc) {
  EXPECT_EQ(parse_iso8601("2024-01-01T00:00:00+02:00"), 1704067200.0L - 7200);
  EXPECT_EQ(parse_iso8601("2024-01-01T00:00:00-0530"), 1704067200.0L + 19800);
  EXPECT_EQ(parse_iso8601("2024-01-01T00:00:00+09"), 1704067200.0L - 32400);
}

TEST(Iso8601, WhatIsNoDateHasNoValue) {
  for (const char* text : {"", "yesterday", "2023-02-29", "2024-13-01", "2024-00-10", "2024-01-32",
                           "2024-01-01T25:00", "2024-01-01T12:60", "2024-01-01T12:00:00X", "2024-01-01x",
                           "24-01-01", "1709209805", "2024-01-01T12:00:00.", "2024-01-01T"}) {
    EXPECT_FALSE(parse_iso8601(text).has_value()) << text;
  }
}

}  // namespace
}  // namespace verne
