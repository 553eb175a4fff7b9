#include "verne/io/sparse_image.hpp"

#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

#include "testing.hpp"

namespace verne {
namespace {

std::span<const std::byte> bytes_of_text(const std::string& text) {
  return std::as_bytes(std::span(text));
}
std::string text_at(const SparseImage& image, std::int64_t offset, std::size_t bytes) {
  std::string text(bytes, '?');
  image.read(offset, std::as_writable_bytes(std::span(text)));
  return text;
}

TEST(SparseImage, HoldsOnlyThePagesThatWereWritten) {
  SparseImage image;
  const std::int64_t far = std::int64_t{3} << 40;
  image.write(far + 4090, bytes_of_text("across two pages"));
  image.write(10, bytes_of_text("start"));
  EXPECT_EQ(image.size(), far + 4090 + 16);
  EXPECT_EQ(image.memory_bytes(), 3 * SparseImage::kPageBytes);
  EXPECT_EQ(text_at(image, far + 4090, 16), "across two pages");
  EXPECT_EQ(text_at(image, 8, 9), std::string("\0\0start\0\0", 9));
  EXPECT_EQ(text_at(image, far / 2, 3), std::string(3, '\0'));
  image.write(far + 4092, bytes_of_text("ROSS"));
  EXPECT_EQ(text_at(image, far + 4090, 16), "acROSS two pages");
}

TEST(SparseImage, ForgetsWhatIsCutOff) {
  SparseImage image;
  image.write(4000, bytes_of_text(std::string(5000, 'x')));
  image.resize(4100);
  EXPECT_EQ(image.size(), 4100);
  EXPECT_EQ(image.memory_bytes(), 2 * SparseImage::kPageBytes);
  image.resize(10'000);
  EXPECT_EQ(text_at(image, 4098, 4), std::string("xx\0\0", 4));
  EXPECT_EQ(text_at(image, 8990, 10), std::string(10, '\0'));
  image.resize(4096);
  EXPECT_EQ(image.memory_bytes(), SparseImage::kPageBytes);
}

TEST(SparseImage, WritesItsPagesAndLeavesTheRest) {
  const testing::TemporaryDirectory directory;
  const auto path = directory.path() / "file";
  testing::write_text(path, std::string(20'000, 'o'));
  SparseImage image;
  image.write(0, bytes_of_text("head"));
  image.write(8192, bytes_of_text(std::string(4096, 'm')));
  image.write(12'288, bytes_of_text("end"));
  image.write_to(File::open_write(path));
  std::string expected(20'000, 'o');
  expected.replace(0, 4096, "head" + std::string(4092, '\0'));
  expected.replace(8192, 4096 + 3, std::string(4096, 'm') + "end");
  EXPECT_EQ(testing::read_text(path), expected);
}

}  // namespace
}  // namespace verne
