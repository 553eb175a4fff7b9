#include "verne/io/safetensors.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "testing.hpp"
#include "verne/base/error.hpp"

namespace verne {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;

std::string with_length(const std::string& json, std::uint64_t length) {
  std::string text(8, '\0');
  std::memcpy(text.data(), &length, 8);
  return text + json;
}
std::string with_length(const std::string& json) {
  return with_length(json, json.size());
}

/// The message with which a file of this header and so many data bytes is refused.
std::string refusal(const std::string& json, std::size_t data_bytes) {
  const std::string header = with_length(json);
  try {
    parse_safetensors_header(header, static_cast<std::int64_t>(header.size() + data_bytes), "m.safetensors");
  } catch (const UserError& error) {
    EXPECT_THAT(error.what(), ::testing::StartsWith("m.safetensors: "));
    return error.what();
  }
  return "accepted";
}

std::string tensor(const std::string& name, const std::string& dtype, const std::string& shape,
                   const std::string& offsets) {
  return fmt::format(R"("{}":{{"dtype":"{}","shape":{},"data_offsets":{}}})", name, dtype, shape, offsets);
}

TEST(SafetensorsHeader, ReadsWhatIsValid) {
  const std::string json = "{" + tensor("b", "BF16", "[2,3]", "[4,16]") +
                           R"(,"__metadata__":{"format":"pt","x":"y"},)" + tensor("a", "F32", "[]", "[0,4]") +
                           "," + tensor("none", "F32", "[0,5]", "[16,16]") + "," +
                           tensor("q", "F4", "[2,3]", "[16,19]") + "}   ";
  const std::string text = with_length(json);
  const auto header = parse_safetensors_header(text, static_cast<std::int64_t>(text.size()) + 19, "m");
  ASSERT_EQ(header.entries.size(), 4u);
  EXPECT_EQ(header.entries[0].name, "a");
  EXPECT_EQ(header.entries[1].name, "b");
  EXPECT_EQ(header.entries[1].dtype, "BF16");
  EXPECT_EQ(header.entries[1].shape, (std::vector<std::int64_t>{2, 3}));
  EXPECT_EQ(header.entries[1].begin, static_cast<std::int64_t>(text.size()) + 4);
  EXPECT_EQ(header.entries[1].end, static_cast<std::int64_t>(text.size()) + 16);
  EXPECT_EQ(header.metadata, (std::map<std::string, std::string>{{"format", "pt"}, {"x", "y"}}));
  EXPECT_EQ(refusal("{}", 0), "accepted");
}

TEST(SafetensorsHeader, LengthField) {
  EXPECT_THAT(refusal("", 0), HasSubstr("does not begin with {"));
  const auto error = [](const std::string& text, std::int64_t file_bytes) -> std::string {
    try {
      safetensors_header_bytes(std::as_bytes(std::span(text)), file_bytes, "m");
    } catch (const UserError& caught) {
      return caught.what();
    }
    return "accepted";
  };
  EXPECT_THAT(error("1234567", 7), HasSubstr("7 bytes is not safetensors"));
  EXPECT_THAT(error(with_length("", 100'000'001), 200'000'000), HasSubstr("header of 100000001 bytes"));
  EXPECT_THAT(error(with_length("", ~std::uint64_t{0}), 200), HasSubstr("18446744073709551615"));
  EXPECT_THAT(error(with_length("", ~std::uint64_t{0} - 7), 200), HasSubstr("more than the 100000000"));
  EXPECT_THAT(error(with_length("", 100), 107), HasSubstr("truncated"));
  EXPECT_EQ(error(with_length("", 100), 108), "accepted");
}

TEST(SafetensorsHeader, Structure) {
  const std::string good = tensor("a", "F32", "[1]", "[0,4]");
  EXPECT_EQ(refusal("{" + good + "}", 4), "accepted");
  EXPECT_THAT(refusal("[1]", 4), HasSubstr("begin with {"));
  EXPECT_THAT(refusal("{" + good, 4), HasSubstr("not valid JSON at byte"));
  EXPECT_THAT(refusal("{" + good + "}x", 4), HasSubstr("not valid JSON"));
  EXPECT_THAT(refusal("{\"\xff\":1}", 4), HasSubstr("UTF-8"));
  EXPECT_THAT(refusal("{" + good + "," + good + "}", 4), HasSubstr("tensor \"a\" twice"));
  EXPECT_THAT(refusal(R"({"a":1})", 0), AllOf(HasSubstr("a number"), HasSubstr("\"a\"")));
  EXPECT_THAT(refusal(R"({"a":{"dtype":"F32","shape":[1]}})", 4), HasSubstr("no data_offsets"));
  EXPECT_THAT(refusal(R"({"a":{"dtype":"F32","data_offsets":[0,4]}})", 4), HasSubstr("no shape"));
  EXPECT_THAT(refusal(R"({"a":{"shape":[1],"data_offsets":[0,4]}})", 4), HasSubstr("no dtype"));
  EXPECT_THAT(refusal(R"({"a":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}})", 4),
              HasSubstr("dtype twice"));
  EXPECT_THAT(refusal(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"strides":[1]}})", 4),
              HasSubstr("\"strides\""));
  EXPECT_THAT(refusal(R"({"a":{"dtype":4,"shape":[1],"data_offsets":[0,4]}})", 4),
              HasSubstr("a number under \"dtype\""));
  EXPECT_THAT(refusal(R"({"a":{"dtype":"F32","shape":[[1]],"data_offsets":[0,4]}})", 4),
              HasSubstr("an array in its shape"));
  EXPECT_THAT(refusal(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0]}})", 4),
              HasSubstr("1 data_offsets"));
  EXPECT_THAT(refusal(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4,8]}})", 4),
              HasSubstr("more than 2"));
  EXPECT_THAT(refusal(R"({"__metadata__":{"a":1}})", 0), HasSubstr("expected strings"));
  EXPECT_THAT(refusal(R"({"__metadata__":{"a":"1","a":"2"}})", 0), HasSubstr("twice"));
  EXPECT_THAT(refusal(R"({"__metadata__":{},"__metadata__":{}})", 0), HasSubstr("twice"));
}

TEST(SafetensorsHeader, Numbers) {
  EXPECT_THAT(refusal("{" + tensor("a", "F99", "[1]", "[0,4]") + "}", 4), HasSubstr("unknown dtype \"F99\""));
  EXPECT_THAT(refusal("{" + tensor("a", "F32", "[-1]", "[0,4]") + "}", 4), HasSubstr("-1 in its shape"));
  EXPECT_THAT(refusal("{" + tensor("a", "F32", "[1.0]", "[0,4]") + "}", 4), HasSubstr("1.0 in its shape"));
  EXPECT_THAT(refusal("{" + tensor("a", "F32", "[18446744073709551615]", "[0,4]") + "}", 4),
              HasSubstr("below 2^63"));
  EXPECT_THAT(refusal("{" + tensor("a", "F32", "[\"1\"]", "[0,4]") + "}", 4),
              HasSubstr("a string in its shape"));
  EXPECT_THAT(refusal("{" + tensor("a", "F32", "[4294967296,4294967296]", "[0,4]") + "}", 4),
              HasSubstr("larger than any file"));
  EXPECT_THAT(refusal("{" + tensor("a", "F32", "[3]", "[0,4]") + "}", 4),
              AllOf(HasSubstr("[3]"), HasSubstr("needs 12 bytes"), HasSubstr("span 4")));
  EXPECT_THAT(refusal("{" + tensor("a", "F4", "[3]", "[0,2]") + "}", 2), HasSubstr("whole byte"));
  EXPECT_THAT(refusal("{" + tensor("a", "F6_E2M3", "[4]", "[0,3]") + "}", 3), "accepted");
}

TEST(SafetensorsHeader, HolesOverlapsAndEnds) {
  const std::string a = tensor("a", "U8", "[4]", "[0,4]");
  EXPECT_THAT(refusal("{" + a + "," + tensor("b", "U8", "[4]", "[5,9]") + "}", 9),
              AllOf(HasSubstr("\"b\" begins at byte 5"), HasSubstr("hole")));
  EXPECT_THAT(refusal("{" + a + "," + tensor("b", "U8", "[4]", "[3,7]") + "}", 7),
              AllOf(HasSubstr("\"a\" before it ends at byte 4"), HasSubstr("overlap")));
  EXPECT_THAT(refusal("{" + tensor("a", "U8", "[4]", "[1,5]") + "}", 5), HasSubstr("hole"));
  EXPECT_THAT(refusal("{" + tensor("a", "U8", "[4]", "[4,0]") + "}", 4), HasSubstr("before it begins"));
  EXPECT_THAT(refusal("{" + a + "}", 5), HasSubstr("end at byte 4 of the data, but the file holds 5"));
  EXPECT_THAT(refusal("{" + a + "}", 3), HasSubstr("truncated"));
  EXPECT_THAT(refusal("{" + a + "," + tensor("b", "U8", "[4]", "[0,4]") + "}", 4), HasSubstr("overlap"));
  EXPECT_THAT(refusal("{}", 1), HasSubstr("end at byte 0"));
}

TEST(Safetensors, RoundTripIsBitForBit) {
  const testing::TemporaryDirectory directory;
  const fs::path path = directory.path() / "m.safetensors";
  const std::vector<TensorInfo> tensors = {
      {"z.weight", DType::bf16, {3, 5}}, {"scalar", DType::f32, {}}, {"a\"quoted\"", DType::f32, {2, 2}},
      {"ids", DType::i64, {3}},          {"bytes", DType::u8, {7}},  {"f8", DType::f8_e4m3, {2, 3}},
      {"empty", DType::f16, {0, 4}}};
  std::map<std::string, std::vector<std::byte>> data;
  {
    SafetensorsWriter writer(path, tensors);
    unsigned seed = 1;
    for (const TensorInfo& tensor : tensors) {
      auto& bytes = data[tensor.name];
      for (std::int64_t i = 0; i < tensor.bytes(); ++i)
        bytes.push_back(static_cast<std::byte>((seed = seed * 1103515245u + 12345u) >> 16));
      const auto half = bytes.size() / 2;
      writer.write(tensor, static_cast<std::int64_t>(half), std::span(bytes).subspan(half));
      writer.write(tensor, 0, std::span(bytes).first(half));
    }
    EXPECT_THROW(writer.write({"none", DType::f32, {1}}, 0, {}), InternalError);
    EXPECT_THROW(writer.write(tensors[0], 30, std::vector<std::byte>(1)), InternalError);
  }
  const SafetensorsFile file(path);
  EXPECT_EQ(file.metadata(), (std::map<std::string, std::string>{{"format", "pt"}}));
  std::vector<std::string> order;
  for (const TensorInfo& tensor : file.tensors()) order.push_back(tensor.name);
  EXPECT_EQ(order,
            (std::vector<std::string>{"ids", "a\"quoted\"", "scalar", "z.weight", "empty", "f8", "bytes"}));
  for (const TensorInfo& expected : tensors) {
    const TensorInfo* tensor = file.find(expected.name);
    ASSERT_TRUE(tensor) << expected.name;
    EXPECT_EQ(tensor->shape, expected.shape);
    EXPECT_EQ(tensor->dtype, expected.dtype);
    std::vector<std::byte> bytes(data[expected.name].size());
    file.read(*tensor, 0, bytes);
    EXPECT_EQ(bytes, data[expected.name]) << expected.name;
    if (bytes.size() < 4) continue;
    file.read(*tensor, 2, std::span(bytes).first(2));
    EXPECT_EQ(bytes[1], data[expected.name][3]);
  }
  std::uint64_t length = 0;
  std::memcpy(&length, testing::read_text(path).data(), 8);
  EXPECT_EQ(length % 8, 0u);
}

TEST(Safetensors, UnsupportedTensorsAreListedAndNotRead) {
  const testing::TemporaryDirectory directory;
  const fs::path path = directory.path() / "m.safetensors";
  testing::write_text(
      path, with_length("{" + tensor("i", "I16", "[2]", "[0,4]") + "," + tensor("f", "F32", "[1]", "[4,8]") +
                        "," + tensor("five", "U8", "[1,1,1,1,2]", "[8,10]") + "}") +
                std::string(10, 'x'));
  const SafetensorsFile file(path);
  ASSERT_EQ(file.tensors().size(), 1u);
  EXPECT_EQ(file.tensors()[0].name, "f");
  ASSERT_EQ(file.unsupported().size(), 2u);
  EXPECT_EQ(file.unsupported()[0].text(), "i of dtype I16 and shape [2]");
  EXPECT_EQ(file.unsupported()[1].text(), "five of dtype U8 and shape [1, 1, 1, 1, 2]");
}

TEST(Safetensors, BrokenFilesAreRefused) {
  const testing::TemporaryDirectory directory;
  const fs::path path = directory.path() / "m.safetensors";
  for (const std::string& text :
       {std::string(), std::string("abc"), with_length("", 1000), std::string("version https://git-lfs")}) {
    testing::write_text(path, text);
    EXPECT_THROW(SafetensorsFile{path}, UserError) << text;
  }
  EXPECT_THROW(SafetensorsFile{directory.path() / "none"}, UserError);
  testing::write_text(path,
                      with_length("{" + tensor("f", "F32", "[4]", "[0,16]") + "}") + std::string(16, 'x'));
  const SafetensorsFile file(path);
  fs::resize_file(path, fs::file_size(path) - 1);
  std::array<std::byte, 16> bytes{};
  EXPECT_THROW(file.read(file.tensors()[0], 0, bytes), UserError) << "cut after it was opened";
  EXPECT_THROW(SafetensorsFile{path}, UserError);
}

}  // namespace
}  // namespace verne
