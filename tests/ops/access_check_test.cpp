// The check that every operation's cases go through finds each way in which a listing can be wrong.
#include "access_check.hpp"

#include <gtest/gtest-spi.h>

#include "fixture.hpp"
#include "verne/tensor/cpu_queue.hpp"

namespace verne::testing {

/// y = a + b, z += a, with the access that a test lets it claim. f32 [n].
struct Claim {
  static constexpr const char* kName = "Claim";
  Tensor y, z, a, b;
  Access claimed;
  void check() const {}
  Cost cost() const { return {}; }
  Access access() const { return claimed; }
};
void launch(CpuQueue&, const Claim& op) {
  for (std::int64_t i = 0; i < op.y.count(); ++i) {
    op.y.data<float>()[i] = op.a.data<float>()[i] + op.b.data<float>()[i];
    op.z.data<float>()[i] += op.a.data<float>()[i];
  }
}
#if VERNE_WITH_CUDA
void launch(CudaQueue&, const Claim&) {
  throw InternalError("for the CPU alone");
}
#endif

namespace {

class AccessChecks : public ::testing::Test {
 protected:
  void claim(const Access& access) {
    bench_.run(Claim{.y = y_, .z = z_, .a = a_, .b = b_, .claimed = access});
    bench_.expect_guards_intact();
  }

  CpuQueue queue_;
  Workbench bench_{queue_};
  Tensor y_ = bench_.poisoned(DType::f32, {5}), z_ = bench_.random(DType::f32, {5}, 1);
  Tensor a_ = bench_.random(DType::f32, {5}, 2), b_ = bench_.random(DType::f32, {5}, 3);
};

TEST_F(AccessChecks, TheRightListPasses) {
  const Values a = bench_.values(a_), b = bench_.values(b_), z = bench_.values(z_);
  claim({.reads = {a_, b_, z_}, .writes = {y_, z_}});
  for (std::size_t i = 0; i < 5; ++i) {
    EXPECT_EQ(bench_.values(y_)[i], static_cast<float>(a[i] + b[i]));
    EXPECT_EQ(bench_.values(z_)[i], static_cast<float>(z[i] + a[i])) << "the operation counts once";
  }
}

TEST_F(AccessChecks, AReadMustBeListed) {
  EXPECT_NONFATAL_FAILURE(claim({.reads = {a_, z_}, .writes = {y_, z_}}), "reads what it does not list");
  EXPECT_NONFATAL_FAILURE(claim({.reads = {a_, b_.rows(0, 4), z_}, .writes = {y_, z_}}),
                          "reads what it does not list");
}

TEST_F(AccessChecks, WhatIsAddedToMustBeListedAsRead) {
  EXPECT_NONFATAL_FAILURE(claim({.reads = {a_, b_}, .writes = {y_, z_}}), "reads what it does not list");
}

TEST_F(AccessChecks, AWriteMustBeListed) {
  EXPECT_NONFATAL_FAILURE(claim({.reads = {a_, b_, z_}, .writes = {y_}}), "writes what it does not list");
}

TEST_F(AccessChecks, WhatIsListedAsWrittenMustChange) {
  EXPECT_NONFATAL_FAILURE(claim({.reads = {a_, b_, z_}, .writes = {y_, z_, b_}}),
                          "never changes tensor 2 of its writes");
}

TEST_F(AccessChecks, WhatIsNotThereMustNotBeListed) {
  EXPECT_NONFATAL_FAILURE(claim({.reads = {a_, b_, z_, Tensor{}}, .writes = {y_, z_}}), "that is not there");
}

}  // namespace
}  // namespace verne::testing
