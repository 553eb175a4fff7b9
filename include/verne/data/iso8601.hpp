#pragma once
#include <optional>
#include <string_view>

namespace verne {

/// Seconds since 1970-01-01T00:00:00 UTC of an ISO 8601 date or date and time: `2024`, `2024-03`,
/// `2024-03-31`, `20240331`, followed by nothing or by `T` or a blank and `hh`, `hh:mm`, `hhmm`, `hh:mm:ss`,
/// `hhmmss`, with a fraction of a second, and by nothing (UTC), `Z`, `±hh`, `±hh:mm` or `±hhmm`. No value
/// where it is none of these or names a day or time that does not exist. A long double (64 bits of mantissa)
/// keeps fractions to 1e-8 s.
std::optional<long double> parse_iso8601(std::string_view text);

}  // namespace verne
