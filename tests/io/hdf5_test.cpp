#include "verne/io/hdf5.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <functional>
#include <numeric>

#include "testing.hpp"
#include "verne/base/error.hpp"
#include "verne/io/file.hpp"

namespace verne {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

template <class Error, class Call>
std::string message_of(const Call& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.what();
  }
  return "nothing was thrown";
}

TEST(Hdf5, SaysThatAFileMayGrowNoFurther) {
  const testing::TemporaryDirectory directory;
  Hdf5File file = Hdf5File::create(directory.path() / "limited.h5");
  const std::array<std::int64_t, 1> extents{1 << 20};
  const Hdf5Dataset data = file.create_dataset("/data", Hdf5Type::u8, extents);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  const rlimit limit{.rlim_cur = 200'000, .rlim_max = before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
  const std::string message =
      message_of<SystemError>([&] { data.write(0, std::vector<std::byte>(std::size_t{1} << 20)); });
  setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, handler);
  EXPECT_THAT(message, HasSubstr("limited.h5"));
  EXPECT_THAT(message, ::testing::EndsWith("the disk is full or a size limit is reached (File too large)"));
}

TEST(Hdf5, WritesAndReadsEveryTypeAtAnyElement) {
  const testing::TemporaryDirectory directory;
  const auto path = directory.path() / "types.h5";
  const std::array<std::int64_t, 3> extents{3, 4, 5};
  for (const Hdf5Type type :
       {Hdf5Type::u8, Hdf5Type::u32, Hdf5Type::u64, Hdf5Type::i32, Hdf5Type::i64, Hdf5Type::f16,
        Hdf5Type::bf16, Hdf5Type::f32, Hdf5Type::f64, Hdf5Type::f8_e4m3}) {
    const auto size = static_cast<std::size_t>(size_bytes(type));
    std::vector<std::byte> bytes(60 * size);
    for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(i * 7 + 1);
    {
      Hdf5File file = Hdf5File::create(path);
      const Hdf5Dataset data = file.create_dataset("/group/inner/data", type, extents);
      // Ragged pieces that begin and end inside rows and planes.
      for (const auto& [first, count] : {std::pair{0, 7}, {7, 1}, {8, 31}, {39, 21}}) {
        data.write(first, std::span(bytes).subspan(static_cast<std::size_t>(first) * size,
                                                   static_cast<std::size_t>(count) * size));
      }
      file.close();
    }
    const Hdf5File file = Hdf5File::open(path);
    const Hdf5Dataset data = file.dataset("/group/inner/data");
    EXPECT_EQ(data.type(), type) << name(type);
    EXPECT_THAT(data.extents(), ElementsAre(3, 4, 5));
    std::vector<std::byte> read(bytes.size());
    data.read(0, read);
    EXPECT_EQ(read, bytes) << name(type);
    std::vector<std::byte> part(23 * size);
    data.read(11, part);
    EXPECT_TRUE(std::equal(part.begin(), part.end(), bytes.begin() + static_cast<std::ptrdiff_t>(11 * size)))
        << name(type);
    // The same bytes lie in the file at the offset.
    File::open_read(path).read_at(data.file_offset(), read);
    EXPECT_EQ(read, bytes) << name(type);
  }
}

TEST(Hdf5, TextsStringsAttributesAndEmptyThings) {
  const testing::TemporaryDirectory directory;
  const auto path = directory.path() / "texts.h5";
  const std::vector<std::string> words{"", "zwei", std::string(100'000, 'x'), "größer"};
  {
    Hdf5File file = Hdf5File::create(path);
    file.write_text("/text", "{\"a\": 1}\n");
    file.write_text("/empty", "");
    file.write_bytes("/files/tokenizer.json", std::string("a\0b", 3));
    file.write_bytes("/files/nothing", "");
    file.create_strings("/words", 4).write(0, words);
    file.write_attribute("/", "version", std::int64_t{7});
    file.write_attribute("/text", "note", "grün");
    file.create_dataset("/scalar", Hdf5Type::f32, {});
    file.close();
  }
  const Hdf5File file = Hdf5File::open(path);
  EXPECT_EQ(file.read_text("/text"), "{\"a\": 1}\n");
  EXPECT_EQ(file.read_text("/empty"), "");
  EXPECT_EQ(file.read_bytes("/files/tokenizer.json"), std::string("a\0b", 3));
  EXPECT_EQ(file.read_bytes("/files/nothing"), "");
  EXPECT_EQ(file.strings("/words").read(0, 4), words);
  EXPECT_EQ(file.strings("/words").read(1, 1), std::vector<std::string>{"zwei"});
  EXPECT_EQ(file.integer_attribute("/", "version"), 7);
  EXPECT_EQ(file.text_attribute("/text", "note"), "grün");
  EXPECT_THAT(file.list_attributes("/"), ElementsAre("version"));
  EXPECT_THAT(file.list("/files"), ElementsAre("nothing", "tokenizer.json"));
  EXPECT_THAT(file.list("/none"), ElementsAre());
  EXPECT_EQ(file.dataset("/scalar").count(), 1);
  EXPECT_FALSE(file.contains("/files/other"));
}

TEST(Hdf5, EqualContentIsEqualBytes) {
  const testing::TemporaryDirectory directory;
  std::string bytes[2];
  for (int i = 0; i < 2; ++i) {
    const auto path = directory.path() / "same.h5";
    Hdf5File file = Hdf5File::create(path);
    const std::array values{1.0f, 2.0f};
    file.create_dataset("/a/b", Hdf5Type::f32, std::array<std::int64_t, 1>{2})
        .write(0, std::as_bytes(std::span(values)));
    file.write_text("/text", "text");
    file.close();
    bytes[i] = testing::read_text(path);
  }
  EXPECT_TRUE(bytes[0] == bytes[1]);
}

TEST(Hdf5, TensorsOfAGroupAtOnce) {
  const testing::TemporaryDirectory directory;
  const auto path = directory.path() / "tensors.h5";
  std::vector<TensorInfo> tensors{{"b", DType::bf16, {3, 70'000}},
                                  {"a", DType::f32, {}},
                                  {"nothing", DType::f16, {0, 4}},
                                  {"d", DType::f8_e4m3, {2, 3, 4, 5}}};
  for (int i = 0; i < 3000; ++i) tensors.push_back({fmt::format("many.{}", i), DType::f64, {i % 7 + 1}});
  SparseImage image;
  std::vector<std::int64_t> offsets;
  std::int64_t text_at = 0;
  {
    Hdf5File file = Hdf5File::create_in_memory(image, "tensors.h5");
    offsets = file.create_tensors("/outer/group", tensors);
    text_at = file.create_text("/text", 100);
    EXPECT_THROW(file.create_tensors("/slash", std::vector<TensorInfo>{{"a/b", DType::f32, {1}}}),
                 InternalError);
    file.close();
  }
  const std::string padded = "padded";
  image.write(text_at, std::as_bytes(std::span(padded)));
  const float value = 2.5f;
  image.write(offsets[1], std::as_bytes(std::span(&value, 1)));
  {
    const File file = File::create(path);
    file.reserve(image.size());
    image.write_to(file);
  }
  const Hdf5File file = Hdf5File::open(path);
  EXPECT_EQ(file.read_text("/text"), "padded");
  EXPECT_EQ(file.count("/outer/group"), 3004);
  EXPECT_EQ(file.count("/none"), 0);
  float read = 0;
  file.dataset("/outer/group/a").read(0, std::as_writable_bytes(std::span(&read, 1)));
  EXPECT_EQ(read, 2.5f);
  const std::vector<StoredTensor> found = file.tensors("/outer/group");
  ASSERT_EQ(found.size(), tensors.size());
  for (std::size_t i = 1; i < found.size(); ++i) EXPECT_LT(found[i - 1].info.name, found[i].info.name);
  for (const StoredTensor& stored : found) {
    const auto given = std::find_if(tensors.begin(), tensors.end(),
                                    [&](const TensorInfo& info) { return info.name == stored.info.name; });
    ASSERT_NE(given, tensors.end());
    EXPECT_EQ(stored.info.dtype, given->dtype) << stored.info.name;
    EXPECT_EQ(stored.info.shape, given->shape) << stored.info.name;
    EXPECT_EQ(stored.offset, offsets[static_cast<std::size_t>(given - tensors.begin())]) << stored.info.name;
    EXPECT_EQ(stored.offset == 0, stored.info.name == "nothing");
  }
  EXPECT_TRUE(file.tensors("/none").empty());
  EXPECT_EQ(found[1].offset % 4096, 0) << "large ones are aligned";
}

TEST(Hdf5, WhatNoTensorIsIsRefused) {
  const testing::TemporaryDirectory directory;
  const auto path = directory.path() / "odd.h5";
  const auto refusal = [&](const std::function<void(Hdf5File&)>& fill) {
    Hdf5File file = Hdf5File::create(path);
    file.create_group("/g");
    fill(file);
    file.close();
    return message_of<UserError>([&] { Hdf5File::open(path).tensors("/g"); });
  };
  const std::vector<std::int64_t> five{1, 1, 1, 1, 1}, one{1};
  EXPECT_THAT(refusal([&](Hdf5File& file) { file.create_dataset("/g/x", Hdf5Type::f32, five); }),
              HasSubstr("/g/x has 5 dimensions"));
  EXPECT_THAT(refusal([&](Hdf5File& file) { file.create_dataset("/g/x", Hdf5Type::u64, one); }),
              HasSubstr("/g/x has an element type that no tensor has"));
  EXPECT_THAT(refusal([&](Hdf5File& file) { file.create_group("/g/x"); }),
              HasSubstr("cannot open dataset x"));
}

TEST(Hdf5, ForeignFilesAreRefusedInWords) {
  const testing::TemporaryDirectory directory;
  const auto path = directory.path() / "foreign.h5";
  const auto open = [&] { Hdf5File::open(path); };
  EXPECT_THAT(message_of<UserError>(open), HasSubstr("there is no such file"));
  testing::write_text(path, "not HDF5 at all");
  EXPECT_THAT(message_of<UserError>(open), HasSubstr("it is not an HDF5 file"));
  {
    Hdf5File file = Hdf5File::create(path);
    const std::vector<std::byte> zeros(100'000);
    file.create_dataset("/data", Hdf5Type::u8, std::array<std::int64_t, 1>{100'000}).write(0, zeros);
    file.close();
  }
  EXPECT_THAT(message_of<UserError>([&] { Hdf5File::open(path).dataset("/other"); }),
              HasSubstr("there is no /other"));
  EXPECT_THAT(message_of<UserError>([&] { Hdf5File::open(path).read_text("/data"); }),
              HasSubstr("/data is not one string"));
  EXPECT_THAT(message_of<UserError>([&] { Hdf5File::open(path).integer_attribute("/", "version"); }),
              HasSubstr("lacks the attribute version"));
  std::filesystem::resize_file(path, 50'000);
  EXPECT_THAT(message_of<UserError>(open), HasSubstr("truncated"));
  EXPECT_THAT(message_of<SystemError>([&] { Hdf5File::create(directory.path() / "none" / "x.h5"); }),
              HasSubstr("No such file"));
}

}  // namespace
}  // namespace verne
