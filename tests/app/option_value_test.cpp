#include "verne/app/option_value.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace verne {
namespace {

using ::testing::ElementsAre;

TEST(OptionValue, Integers) {
  EXPECT_EQ(parse_integer("128", {1}), 128);
  EXPECT_EQ(parse_integer("9223372036854775807", {0}), INT64_MAX);
  EXPECT_EQ(parse_integer("8", {1, 8}), 8);
  EXPECT_THROW(parse_integer("9", {1, 8}), BadValue);
  for (const char* bad :
       {"", "3x", "1e3", "0x10", "9223372036854775808", "0", "-1", " 3", "+3", "1.0", "nan"}) {
    EXPECT_THROW(parse_integer(bad, {1}), BadValue) << bad;
  }
  try {
    parse_integer("3x", {1, 8});
    FAIL();
  } catch (const BadValue& error) {
    EXPECT_STREQ(error.what(), "expected a whole number 1 to 8");
  }
}

TEST(OptionValue, Numbers) {
  EXPECT_EQ(parse_number("5e-6", {0}), 5e-6);
  EXPECT_EQ(parse_number("1", {0, 1}), 1.0);
  const NumberRange open{0, 1, Bound::excluded, Bound::excluded};
  for (const char* bad : {"", "nan", "inf", "-inf", "1e999", "0.5x", "0", "1", "-0.1", "0x1p-2", "1,5"}) {
    EXPECT_THROW(parse_number(bad, open), BadValue) << bad;
  }
  EXPECT_EQ(describe(open), "0 to 1, 0 excluded, 1 excluded");
  EXPECT_EQ(describe(NumberRange{0, 1e300, Bound::excluded}), "> 0");
}

TEST(OptionValue, SwitchesAndChoices) {
  EXPECT_TRUE(parse_switch("on"));
  EXPECT_FALSE(parse_switch("0"));
  EXPECT_THROW(parse_switch("maybe"), BadValue);
  const std::string_view choices[] = {"none", "selective", "full"};
  EXPECT_EQ(parse_choice("full", choices), 2u);
  try {
    parse_choice("Full", choices);
    FAIL();
  } catch (const BadValue& error) {
    EXPECT_STREQ(error.what(), "expected none, selective or full");
  }
}

TEST(OptionValue, Lists) {
  EXPECT_THAT(parse_list("a, b c ,d\\,e\\\\f"), ElementsAre("a", "b c", "d,e\\f"));
  const std::vector<std::string> items = {"x,y", "z\\", "w"};
  EXPECT_EQ(parse_list(format_list(items)), items);
  EXPECT_THROW(parse_list("a,,b"), BadValue);
  EXPECT_THROW(parse_list("a,"), BadValue);
  EXPECT_THROW(parse_list(""), BadValue);
}

}  // namespace
}  // namespace verne
