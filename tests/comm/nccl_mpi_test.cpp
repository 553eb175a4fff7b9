// NCCL's collectives against those of MPI, on as many GPUs as ranks; and the collectives of ranks that share
// GPUs, on any number of them.
#include <gtest/gtest.h>
#include <mpi.h>

#if VERNE_WITH_CUDA
#include "collective_cases.hpp"
#include "verne/base/hash.hpp"
#include "verne/comm/make_communicator.hpp"
#include "verne/comm/mpi_session.hpp"
#include "verne/tensor/cpu_queue.hpp"
#include "verne/tensor/cuda_queue.hpp"

namespace verne {
namespace {

using namespace testing;  // NOLINT: the helpers of this folder

constexpr std::int64_t kCounts[] = {1, 3, 71, 229, 4097, 300001};

template <class T>
double relative_tolerance() {
  if (std::is_same_v<T, double>) return 1e-14;
  return std::is_same_v<T, float> ? 1e-6 : 2e-2;
}

template <class T>
class NcclTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (session_.size() < 2) GTEST_SKIP() << "NCCL is used between two ranks or more";
    const int gpus = CudaQueue::device_count();
    if (session_.world().min(std::int64_t{gpus}) <
        session_.world().max(std::int64_t{session_.node().size()})) {
      GTEST_SKIP() << gpus << " GPUs, fewer than ranks";
    }
    queue_ = std::make_unique<CudaQueue>(session_.gpu_index(gpus));
    nccl_ = make_communicator("data", session_.world(), *queue_, &watchdog_);
    mpi_ = make_communicator("data", session_.world(), host_queue_, &watchdog_);
  }
  int rank() const { return session_.rank(); }
  int size() const { return session_.size(); }

  /// |got − expected| within tolerance of the sum of magnitudes, and the same bits on all ranks where
  /// `all_ranks`.
  void expect_close(const std::vector<T>& got, const std::vector<T>& expected) {
    ASSERT_EQ(got.size(), expected.size());
    double difference = 0, scale = 0;
    for (std::size_t i = 0; i < got.size(); ++i) {
      const auto a = static_cast<double>(static_cast<typename Wide<T>::Type>(got[i]));
      const auto b = static_cast<double>(static_cast<typename Wide<T>::Type>(expected[i]));
      difference += (a - b) * (a - b);
      scale += b * b;
    }
    EXPECT_LE(std::sqrt(difference), relative_tolerance<T>() * std::sqrt(scale)) << got.size();
  }
  void expect_equal_on_all_ranks(const std::vector<T>& values) {
    const std::string own = hex64(xxh3(std::as_bytes(std::span(values))));
    for (const std::string& other : session_.world().all_gather_text(own)) EXPECT_EQ(other, own);
  }

  MpiSession session_;
  CpuQueue host_queue_;
  Watchdog watchdog_{session_, 100};
  std::unique_ptr<CudaQueue> queue_;
  std::unique_ptr<Communicator> nccl_, mpi_;
};

using AllTypes = ::testing::Types<float, double, bf16, std::int32_t, std::uint8_t>;
TYPED_TEST_SUITE(NcclTest, AllTypes);

TYPED_TEST(NcclTest, Reductions) {
  using T = TypeParam;
  for (const std::int64_t count : kCounts) {
    for (const Reduce reduce : {Reduce::sum, Reduce::max}) {
      if (std::is_integral_v<T> && reduce == Reduce::sum) continue;
      const std::vector<T> values = input<T>(this->rank(), count, 1);
      const Buffer device = uploaded(*this->queue_, values), host = uploaded(this->host_queue_, values);
      this->nccl_->all_reduce(*this->queue_, device.tensor(), reduce).wait(*this->queue_);
      this->mpi_->all_reduce(this->host_queue_, host.tensor(), reduce).wait(this->host_queue_);
      const auto got = downloaded<T>(*this->queue_, device.tensor());
      const auto expected = downloaded<T>(this->host_queue_, host.tensor());
      reduce == Reduce::max ? expect_same(got, expected, "max") : this->expect_close(got, expected);
      this->expect_equal_on_all_ranks(got);
    }
    if (std::is_integral_v<T>) continue;
    const std::vector<T> values = input<T>(this->rank(), count * this->size(), 2);
    const Buffer in = uploaded(*this->queue_, values), host_in = uploaded(this->host_queue_, values);
    const Buffer out = poisoned<T>(*this->queue_, count), host_out = poisoned<T>(this->host_queue_, count);
    this->nccl_->reduce_scatter(*this->queue_, out.tensor(), in.tensor()).wait(*this->queue_);
    this->mpi_->reduce_scatter(this->host_queue_, host_out.tensor(), host_in.tensor())
        .wait(this->host_queue_);
    const auto expected = downloaded<T>(this->host_queue_, host_out.tensor());
    this->expect_close(downloaded<T>(*this->queue_, out.tensor()), expected);
    const Tensor own = in.tensor().rows(this->rank() * count, count);
    this->nccl_->reduce_scatter(*this->queue_, own, in.tensor()).wait(*this->queue_);
    this->expect_close(downloaded<T>(*this->queue_, own), expected);
  }
}

TYPED_TEST(NcclTest, Copies) {
  for (const std::int64_t count : kCounts) {
    expect_all_gather<TypeParam>(*this->nccl_, *this->queue_, count);
    expect_broadcast<TypeParam>(*this->nccl_, *this->queue_, count);
  }
}

TYPED_TEST(NcclTest, ExchangesWithAll) {
  for (const std::int64_t count : {std::int64_t{0}, std::int64_t{71}, std::int64_t{300001}})
    expect_exchange_with_all<TypeParam>(*this->nccl_, *this->queue_, count);
}

TYPED_TEST(NcclTest, HasNoFaultWhileAllIsWell) {
  EXPECT_EQ(this->nccl_->fault(), "");
}

/// Ranks that take the GPUs in turn, whether there are enough of them or not.
template <class T>
class SharedGpuTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (session_.size() < 2) GTEST_SKIP() << "a GPU is shared by two ranks or more";
    const int gpus = CudaQueue::device_count();
    if (session_.world().min(std::int64_t{gpus}) == 0) GTEST_SKIP() << "no GPU here";
    queue_ = std::make_unique<CudaQueue>(session_.gpu_index(gpus));
    other_queue_ = std::make_unique<CudaQueue>(session_.gpu_index(gpus));
    staged_ = make_communicator("data", session_.world(), *queue_, &watchdog_, Link::staged);
  }

  MpiSession session_;
  Watchdog watchdog_{session_, 100};
  std::unique_ptr<CudaQueue> queue_, other_queue_;
  std::unique_ptr<Communicator> staged_;
};
TYPED_TEST_SUITE(SharedGpuTest, AllTypes);

TYPED_TEST(SharedGpuTest, CollectivesAreToTheBitThoseOfMpi) {
  for (const std::int64_t count : kCounts) {
    expect_all_reduce<TypeParam>(*this->staged_, *this->queue_, count);
    expect_all_gather<TypeParam>(*this->staged_, *this->queue_, count);
    expect_reduce_scatter<TypeParam>(*this->staged_, *this->queue_, count);
    expect_broadcast<TypeParam>(*this->staged_, *this->queue_, count);
  }
}

TYPED_TEST(SharedGpuTest, ExchangesWithAll) {
  for (const std::int64_t count : {std::int64_t{0}, std::int64_t{71}, std::int64_t{300001}}) {
    expect_exchange_with_all<TypeParam>(*this->staged_, *this->queue_, count);
    expect_exchange_with_all<TypeParam>(*this->staged_, *this->other_queue_, count);
  }
}

TYPED_TEST(SharedGpuTest, AnotherQueueComesAfterTheExchange) {
  const int rank = this->session_.rank(), size = this->session_.size();
  const int next = (rank + 1) % size, previous = (rank + size - 1) % size;
  constexpr std::int64_t kCount = 300001;
  const Buffer out = uploaded(*this->queue_, input<TypeParam>(rank, kCount, 7));
  const Buffer in = poisoned<TypeParam>(*this->queue_, kCount);
  const Buffer seen = poisoned<TypeParam>(*this->other_queue_, kCount);
  const Communicator::Message send{out.tensor(), next}, receive{in.tensor(), previous};
  this->staged_->exchange(*this->queue_, std::span(&send, 1), std::span(&receive, 1))
      .wait(*this->other_queue_);
  this->other_queue_->copy(seen.tensor(), in.tensor());
  expect_same(downloaded<TypeParam>(*this->other_queue_, seen.tensor()),
              input<TypeParam>(previous, kCount, 7), "consumer");
}

}  // namespace
}  // namespace verne
#else
TEST(NcclTest, NeedsCuda) {
  GTEST_SKIP() << "built without CUDA";
}
#endif
