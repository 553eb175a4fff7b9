#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <mpi.h>

#include <optional>
#include <sstream>

#include "test_tokenizer.hpp"
#include "testing.hpp"
#include "verne/base/error.hpp"
#include "verne/data/prepare.hpp"

namespace verne {
namespace {

using ::testing::HasSubstr;

class PrepareMpi : public ::testing::Test {
 protected:
  PrepareMpi() : group_(MPI_COMM_WORLD) {
    if (group_.rank() == 0) directory_.emplace();
    folder_ = group_.broadcast_text(directory_ ? directory_->path().string() : "", 0);
    if (group_.rank() == 0) testing::write_byte_tokenizer(folder_ / "tokenizer");
  }
  ~PrepareMpi() override { group_.barrier(); }

  PrepareSettings settings(const std::string& output) const {
    PrepareSettings result;
    result.inputs = {{folder_ / "a.jsonl", std::nullopt},
                     {folder_ / "b.jsonl", Part::validation},
                     {folder_ / "c.jsonl", std::nullopt}};
    result.output = folder_ / output;
    result.tokenizer = folder_ / "tokenizer";
    result.template_name = "chatml";
    result.split = {0.7, 0.2, 0.1};
    return result;
  }
  void write_inputs() const {
    if (group_.rank() == 0) {
      int number = 0;
      for (const char* name : {"a.jsonl", "b.jsonl", "c.jsonl"}) {
        std::string text;
        for (int i = 0; i < 150; ++i, ++number) {
          const std::string answer(static_cast<std::size_t>(number * number % 83), 'x');
          text += fmt::format("{{\"input\":\"q{}\",\"output\":\"{}\",\"n\":{},\"t\":\"2024-{:02}-01\"}}\n",
                              number, answer, number, 1 + number * 5 % 12);
          if (i % 7 == 0) text += "\r\n";
        }
        testing::write_text(folder_ / name, text);
      }
    }
    group_.barrier();
  }
  /// Prepares with all ranks and with one alone and compares every file.
  void expect_same_files(PrepareSettings wanted) const {
    std::ostringstream out;
    wanted.output = folder_ / "together";
    prepare(wanted, group_, out);
    if (group_.rank() != 0) return;
    wanted.output = folder_ / "alone";
    const PreparedData alone = prepare(wanted, HostGroup(), out);
    EXPECT_GT(alone[Part::train].documents, 0);
    EXPECT_GT(alone[Part::validation].documents, 0);
    for (const char* name : {"train.h5", "validation.h5", "test.h5", "certificate.json"}) {
      EXPECT_TRUE(testing::read_text(folder_ / "together" / name) ==
                  testing::read_text(folder_ / "alone" / name))
          << name;
    }
  }

  HostGroup group_;
  std::optional<testing::TemporaryDirectory> directory_;
  std::filesystem::path folder_;
};

TEST_F(PrepareMpi, SameBytesForAnyNumberOfRanks) {
  write_inputs();
  expect_same_files(settings(""));
}

TEST_F(PrepareMpi, SameBytesSplitByTimeWithALimit) {
  write_inputs();
  PrepareSettings wanted = settings("");
  wanted.split_key = "t";
  wanted.limit = 200;
  expect_same_files(wanted);
}

TEST_F(PrepareMpi, AnErrorOnOneRankReachesAll) {
  write_inputs();
  if (group_.rank() == 0)
    testing::write_text(folder_ / "c.jsonl", testing::read_text(folder_ / "c.jsonl") + "{\"input\":1}\n");
  group_.barrier();
  std::ostringstream out;
  try {
    prepare(settings("broken"), group_, out);
    FAIL() << "accepted";
  } catch (const UserError& error) {
    EXPECT_THAT(error.what(), HasSubstr("c.jsonl:173: "));
  }
  group_.barrier();
  if (group_.rank() == 0) {
    EXPECT_FALSE(std::filesystem::exists(folder_ / "broken" / "train.h5"));
  }
}

TEST_F(PrepareMpi, ReuseIsAgreedOn) {
  write_inputs();
  std::ostringstream out;
  EXPECT_EQ(prepare(settings("kept"), group_, out, Reuse::yes).made, PreparedData::Made::now);
  const PreparedData again = prepare(settings("kept"), group_, out, Reuse::yes);
  EXPECT_EQ(again.made, PreparedData::Made::before);
  EXPECT_EQ(again[Part::train].records, 210);
  EXPECT_EQ(again.input_sha256.size(), 3u);
}

}  // namespace
}  // namespace verne
