#pragma once
#include <fmt/format.h>

#include <concepts>
#include <string>
#include <string_view>

namespace verne {

/// Text as a terminal and a log may have it: valid UTF-8 without control characters. What is not is spelled
/// out: C0 and DEL as \x1b (\r where it has that name), C1 as \u009b, bytes that are no UTF-8 as \xff.
/// Newlines and tabs stay. Every message passes through it on its way out.
std::string printable(std::string_view text);

/// As `printable`, newlines and tabs spelled out too (\n, \t): what comes from outside (names, values,
/// content of files) stays within its line, so that it cannot look like a message of its own.
std::string one_line(std::string_view text);

/// Text that the program laid out in lines itself, as an argument of `message_text`.
struct OwnLines {
  std::string_view text;
};

namespace detail {
template <class T>
decltype(auto) message_argument(const T& argument) {
  if constexpr (std::convertible_to<const T&, std::string_view>) {
    return one_line(argument);
  } else {
    return (argument);
  }
}
}  // namespace detail

/// fmt::format for messages: the format is the program's own text; each argument that is text is taken for
/// foreign and goes through `one_line`, unless it is OwnLines. Errors and log records are made with it.
template <class... Args>
std::string message_text(fmt::format_string<Args...> format, Args&&... args) {
  return fmt::format(fmt::runtime(fmt::string_view(format)), detail::message_argument(args)...);
}

}  // namespace verne

template <>
struct fmt::formatter<verne::OwnLines> : fmt::formatter<std::string_view> {
  template <class Context>
  auto format(const verne::OwnLines& lines, Context& context) const {
    return fmt::formatter<std::string_view>::format(verne::printable(lines.text), context);
  }
};
