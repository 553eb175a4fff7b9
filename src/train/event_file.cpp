#include "verne/train/event_file.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <bit>
#include <cerrno>
#include <chrono>

#include "verne/base/error.hpp"
#include "verne/host/environment.hpp"

namespace verne {
namespace {

static_assert(std::endian::native == std::endian::little);

constexpr std::array<std::uint32_t, 256> make_crc_table() {
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t i = 0; i < 256; ++i) {
    std::uint32_t value = i;
    for (int bit = 0; bit < 8; ++bit) value = (value >> 1) ^ ((value & 1u) ? 0x82F63B78u : 0u);
    table[i] = value;
  }
  return table;
}
constexpr auto kCrcTable = make_crc_table();

// TFRecord stores CRCs rotated and offset, so that a CRC over data that holds CRCs stays useful.
std::uint32_t masked_crc32c(std::string_view bytes) {
  return std::rotr(crc32c(bytes), 15) + 0xA282EAD8u;
}

template <class T>
void append_raw(std::string& out, T value) {
  const auto bytes = std::bit_cast<std::array<char, sizeof(T)>>(value);
  out.append(bytes.data(), bytes.size());
}

// Protocol buffer wire format: key = field number · 8 + wire type (0 varint, 1 64 bits, 2 length-delimited, 5
// 32 bits).
void append_varint(std::string& out, std::uint64_t value) {
  for (; value >= 0x80; value >>= 7) out += static_cast<char>(value | 0x80);
  out += static_cast<char>(value);
}
void append_key(std::string& out, std::uint64_t field, std::uint64_t wire_type) {
  append_varint(out, field << 3 | wire_type);
}
void append_double(std::string& out, std::uint64_t field, double value) {
  append_key(out, field, 1);
  append_raw(out, value);
}
void append_float(std::string& out, std::uint64_t field, float value) {
  append_key(out, field, 5);
  append_raw(out, value);
}
void append_integer(std::string& out, std::uint64_t field, std::int64_t value) {
  append_key(out, field, 0);
  append_varint(out, static_cast<std::uint64_t>(value));
}
void append_bytes(std::string& out, std::uint64_t field, std::string_view value) {
  append_key(out, field, 2);
  append_varint(out, value.size());
  out += value;
}

constexpr std::uint64_t kEventWallTime = 1, kEventStep = 2, kEventFileVersion = 3, kEventSummary = 5,
                        kEventSession = 7;
constexpr std::uint64_t kSummaryValue = 1, kValueTag = 1, kValueSimple = 2, kSessionStatus = 1;
constexpr std::int64_t kSessionStart = 1;

double now_s() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

}  // namespace

std::uint32_t crc32c(std::string_view bytes) {
  std::uint32_t crc = 0xFFFFFFFFu;
  for (const char byte : bytes)
    crc = kCrcTable[(crc ^ static_cast<unsigned char>(byte)) & 0xFFu] ^ (crc >> 8);
  return crc ^ 0xFFFFFFFFu;
}

std::string event_record(std::string_view data) {
  std::string record;
  append_raw(record, static_cast<std::uint64_t>(data.size()));
  append_raw(record, masked_crc32c(std::string_view(record)));
  record += data;
  append_raw(record, masked_crc32c(data));
  return record;
}

std::string version_event(double wall_time_s) {
  std::string event;
  append_double(event, kEventWallTime, wall_time_s);
  append_bytes(event, kEventFileVersion, "brain.Event:2");
  return event;
}

std::string scalar_event(double wall_time_s, std::int64_t step, std::string_view tag, float value) {
  std::string summary_value;
  append_bytes(summary_value, kValueTag, tag);
  append_float(summary_value, kValueSimple, value);
  std::string summary;
  append_bytes(summary, kSummaryValue, summary_value);
  std::string event;
  append_double(event, kEventWallTime, wall_time_s);
  append_integer(event, kEventStep, step);
  append_bytes(event, kEventSummary, summary);
  return event;
}

std::string session_start_event(double wall_time_s, std::int64_t step) {
  std::string session;
  append_integer(session, kSessionStatus, kSessionStart);
  std::string event;
  append_double(event, kEventWallTime, wall_time_s);
  append_integer(event, kEventStep, step);
  append_bytes(event, kEventSession, session);
  return event;
}

EventFile::EventFile(const std::filesystem::path& directory, std::int64_t next_step) {
  const double time_s = now_s();
  for (int counter = 0; descriptor_ < 0; ++counter) {
    path_ = directory / fmt::format("events.out.tfevents.{:010d}.{}.{}.{}", static_cast<std::int64_t>(time_s),
                                    host_name(), ::getpid(), counter);
    descriptor_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0666);
    if (descriptor_ < 0 && errno != EEXIST) {
      throw_errno(fmt::format("{} cannot be opened for writing", path_.string()), errno);
    }
  }
  append(event_record(version_event(time_s)) + event_record(session_start_event(time_s, next_step)));
}

EventFile::~EventFile() {
  ::close(descriptor_);
}

void EventFile::scalar(std::int64_t step, std::string_view tag, double value) {
  append(event_record(scalar_event(now_s(), step, tag, static_cast<float>(value))));
}

void EventFile::append(std::string_view record) {
  while (!record.empty()) {
    const ssize_t written = ::write(descriptor_, record.data(), record.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) throw_errno(fmt::format("{} cannot be written", path_.string()), errno);
    record.remove_prefix(static_cast<std::size_t>(written));
  }
}

}  // namespace verne
