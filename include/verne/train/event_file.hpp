#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

namespace verne {

/// CRC-32C (Castagnoli, reflected polynomial 0x82F63B78) of `bytes`.
std::uint32_t crc32c(std::string_view bytes);

/// A TFRecord: u64 length, u32 masked CRC of the length's bytes, the data, u32 masked CRC of the data;
/// little-endian.
std::string event_record(std::string_view data);

/// Serialized tensorflow.Event messages (tensorboard/compat/proto/event.proto, summary.proto).
std::string version_event(double wall_time_s);
std::string scalar_event(double wall_time_s, std::int64_t step, std::string_view tag, float value);
/// Tells readers to drop what earlier files hold from `step` on.
std::string session_start_event(double wall_time_s, std::int64_t step);

/// Appends to a TensorBoard event file of its own, `events.out.tfevents.<seconds>.<host>.<pid>.0`, in a
/// directory.
class EventFile {
 public:
  /// `next_step`: the first step that this file will hold. Throws SystemError where the file cannot be
  /// written.
  EventFile(const std::filesystem::path& directory, std::int64_t next_step);
  ~EventFile();
  EventFile(const EventFile&) = delete;
  EventFile& operator=(const EventFile&) = delete;

  void scalar(std::int64_t step, std::string_view tag, double value);
  const std::filesystem::path& path() const { return path_; }

 private:
  void append(std::string_view record);
  std::filesystem::path path_;
  int descriptor_ = -1;
};

}  // namespace verne
