#include "verne/train/event_file.hpp"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "testing.hpp"

namespace verne {
namespace {

std::string hex(std::string_view bytes) {
  std::string text;
  for (const char byte : bytes) text += fmt::format("{:02x}", static_cast<unsigned char>(byte));
  return text;
}

TEST(EventFile, Crc32cCheckValue) {
  EXPECT_EQ(crc32c("123456789"), 0xE3069283u);
}

// Bytes that TensorBoard's own reader and CRC accept.
TEST(EventFile, RecordsMatchTensorBoard) {
  EXPECT_EQ(hex(event_record(version_event(1.0))),
            "1800000000000000a37f4b2209000000000000f03f1a0d627261696e2e4576656e743a3286bf577a");
  EXPECT_EQ(hex(event_record(scalar_event(2.0, 3, "loss", 0.5f))),
            "1a00000000000000129bd82d09000000000000004010032a0d0a0b0a046c6f7373150000003fbac36b94");
  // Event{wall_time 1.0, step 300, session_log {status START}}: fields 1, 2 (varint 0xac 0x02) and 7.
  EXPECT_EQ(hex(session_start_event(1.0, 300)), "09000000000000f03f10ac023a020801");
}

TEST(EventFile, FileHoldsWholeRecords) {
  const testing::TemporaryDirectory directory;
  std::filesystem::path path;
  {
    EventFile file(directory.path(), 1);
    path = file.path();
    file.scalar(1, "loss", 2.5);
    EXPECT_NE(EventFile(directory.path(), 1).path(), path);
  }
  EXPECT_EQ(path.filename().string().find("events.out.tfevents."), 0u);
  const std::string bytes = testing::read_text(path);
  std::size_t position = 0;
  int records = 0;
  for (; position < bytes.size(); ++records) {
    std::uint64_t length = 0;
    bytes.copy(reinterpret_cast<char*>(&length), 8, position);
    EXPECT_EQ(event_record(bytes.substr(position + 12, length)), bytes.substr(position, length + 16));
    position += length + 16;
  }
  EXPECT_EQ(position, bytes.size());
  EXPECT_EQ(records, 3);
}

}  // namespace
}  // namespace verne
