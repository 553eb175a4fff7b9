#include "verne/checkpoint/convert.hpp"

#include <gtest/gtest.h>

namespace verne {
namespace {

TEST(UpdatedConfig, ChangesDtypeAndGrownVocabularyAlone) {
  const std::string config = "{\"a\":1e-05, \"dtype\": \"float32\",\n \"vocab_size\": 100, \"b\": [1, 2]}";
  EXPECT_EQ(updated_config(config, DType::f32, 100), config);
  EXPECT_EQ(updated_config(config, DType::f32, 90), config);
  EXPECT_EQ(updated_config(config, DType::bf16, 104),
            "{\"a\":1e-05, \"dtype\": \"bfloat16\",\n \"vocab_size\": 104, \"b\": [1, 2]}");
  EXPECT_EQ(updated_config("{\"torch_dtype\": \"bfloat16\"}", DType::f16, 0),
            "{\"torch_dtype\": \"float16\"}");
  EXPECT_EQ(updated_config("{\"x\": 1}", DType::bf16, 7), "{\"x\": 1}");
}

}  // namespace
}  // namespace verne
