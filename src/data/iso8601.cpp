#include "verne/data/iso8601.hpp"

#include <array>
#include <cstdint>

namespace verne {
namespace {

/// Reads a text from its start; every member says whether it found what it looked for.
class Cursor {
 public:
  explicit Cursor(std::string_view text) : rest_(text) {}
  bool done() const { return rest_.empty(); }
  bool skip(char c) {
    if (rest_.empty() || rest_.front() != c) return false;
    rest_.remove_prefix(1);
    return true;
  }
  bool digit_next() const { return !rest_.empty() && rest_.front() >= '0' && rest_.front() <= '9'; }
  bool number(int digits, std::int64_t& value) {
    value = 0;
    for (int i = 0; i < digits; ++i) {
      if (!digit_next()) return false;
      value = value * 10 + (rest_.front() - '0');
      rest_.remove_prefix(1);
    }
    return true;
  }

 private:
  std::string_view rest_;
};

/// Days since 1970-01-01 of a date of the proleptic Gregorian calendar. Years are counted from March, so that
/// the leap day ends them: day of year = (153·m + 2)/5 with m months since March; 400 years have 146097 days.
std::int64_t days_since_epoch(std::int64_t year, std::int64_t month, std::int64_t day) {
  const std::int64_t y = month <= 2 ? year - 1 : year;
  const std::int64_t m = (month + 9) % 12;
  const std::int64_t era = (y >= 0 ? y : y - 399) / 400, year_of_era = y - era * 400;
  const std::int64_t day_of_year = (153 * m + 2) / 5 + day - 1;
  const std::int64_t day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
  return era * 146097 + day_of_era - 719468;
}

std::int64_t days_in_month(std::int64_t year, std::int64_t month) {
  constexpr std::array<std::int64_t, 12> kDays{31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
  const bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
  return month == 2 && leap ? 29 : kDays[static_cast<std::size_t>(month - 1)];
}

bool parse_date(Cursor& in, long double& seconds) {
  std::int64_t year = 0, month = 1, day = 1;
  if (!in.number(4, year)) return false;
  if (in.skip('-')) {
    if (!in.number(2, month)) return false;
    if (in.skip('-') && !in.number(2, day)) return false;
  } else if (in.digit_next()) {
    if (!in.number(2, month) || !in.number(2, day)) return false;
  }
  if (month < 1 || month > 12 || day < 1 || day > days_in_month(year, month)) return false;
  seconds = 86400.0L * static_cast<long double>(days_since_epoch(year, month, day));
  return true;
}

bool parse_time(Cursor& in, long double& seconds) {
  std::int64_t hour = 0, minute = 0, second = 0;
  long double fraction = 0, unit = 1;
  if (!in.number(2, hour)) return false;
  const bool extended = in.skip(':');
  if (extended || in.digit_next()) {
    if (!in.number(2, minute)) return false;
    if (extended ? in.skip(':') : in.digit_next()) {
      if (!in.number(2, second)) return false;
      if (in.skip('.') || in.skip(',')) {
        if (!in.digit_next()) return false;
        for (std::int64_t digit = 0; in.digit_next() && in.number(1, digit);) {
          unit /= 10;
          fraction += unit * static_cast<long double>(digit);
        }
      }
    }
  }
  if (hour > 24 || minute > 59 || second > 60 || (hour == 24 && (minute > 0 || second > 0 || fraction > 0)))
    return false;
  seconds += static_cast<long double>(hour * 3600 + minute * 60 + second) + fraction;
  return true;
}

bool parse_zone(Cursor& in, long double& seconds) {
  if (in.done() || in.skip('Z') || in.skip('z')) return true;
  std::int64_t sign = 0, hour = 0, minute = 0;
  if (in.skip('+')) sign = 1;
  if (sign == 0 && in.skip('-')) sign = -1;
  if (sign == 0 || !in.number(2, hour)) return false;
  if ((in.skip(':') || in.digit_next()) && !in.number(2, minute)) return false;
  if (hour > 23 || minute > 59) return false;
  seconds -= static_cast<long double>(sign * (hour * 3600 + minute * 60));
  return true;
}

}  // namespace

std::optional<long double> parse_iso8601(std::string_view text) {
  Cursor in(text);
  long double seconds = 0;
  if (!parse_date(in, seconds)) return std::nullopt;
  if (in.done()) return seconds;
  if (!in.skip('T') && !in.skip('t') && !in.skip(' ')) return std::nullopt;
  if (!parse_time(in, seconds) || !parse_zone(in, seconds) || !in.done()) return std::nullopt;
  return seconds;
}

}  // namespace verne
