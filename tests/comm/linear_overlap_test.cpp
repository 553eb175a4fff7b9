// The backward of a linear layer cut by columns, with sequence parallelism: its collectives run on a queue of
// their own beside the matmuls. On meta queues a trace shows that each wait is needed, and that they are
// enough.
#include <gmock/gmock.h>

#include "verne/comm/meta_communicator.hpp"
#include "verne/ops/elementwise.hpp"
#include "verne/ops/matmul.hpp"
#include "verne/ops/run.hpp"
#include "verne/tensor/arena.hpp"
#include "verne/tensor/meta_queue.hpp"
#include "verne/tensor/race_checker.hpp"

namespace verne {
namespace {

using ::testing::IsEmpty;

constexpr int kRanks = 4;
constexpr std::int64_t kTokens = 64, kHidden = 32, kOut = 24;

/// Two layers, one behind the other, on rank 1 of four.
class TwoLayers {
 public:
  static constexpr int kWaits = 8;
  static constexpr int kNone = -1;

  /// Runs both without the wait of number `missing`, from 0.
  explicit TwoLayers(int missing) : missing_(missing) {
    for (const Buffer* buffer : {&x_, &dy_, &weight_, &dweight_}) compute_.zero(buffer->tensor());
    for (int layer = 0; layer < 2; ++layer) {
      backward();
      run(compute_, Add{.y = x_.tensor(), .a = x_.tensor(), .b = dx_.tensor()});
    }
  }
  const MetaTrace& trace() const { return trace_; }

 private:
  void wait(Queue& consumer, const Event& event) {
    if (waits_++ != missing_) consumer.wait(event);
  }
  void wait(Queue& consumer, Pending& pending) {
    pending.wait(waits_++ != missing_ ? consumer : tensor_);  // its own queue learns nothing
  }

  void backward() {
    const ArenaScope scope(scratch_);
    const Tensor x = x_.tensor(), dy = dy_.tensor(), weight = weight_.tensor();
    const Tensor whole_x = scratch_.allocate(DType::bf16, {kTokens, kHidden});
    wait(tensor_, compute_.record());
    Pending gathered = communicator_.all_gather(tensor_, whole_x, x);
    const Tensor partial = scratch_.allocate(DType::bf16, {kTokens, kHidden});
    run(compute_, Matmul{.d = partial, .a = dy, .b = weight});
    wait(tensor_, compute_.record());
    Pending reduced = communicator_.reduce_scatter(tensor_, dx_.tensor(), partial);
    wait(compute_, gathered);
    run(compute_, Matmul{.d = dweight_.tensor(),
                         .a = dy,
                         .b = whole_x,
                         .transpose_a = Transpose::yes,
                         .accumulate = Accumulate::yes});
    wait(compute_, reduced);
  }

  MetaTrace trace_{Recording::everything};
  MetaQueue compute_{trace_, "compute"}, tensor_{trace_, "tensor"};
  MetaCommunicator communicator_{"tensor", 1, kRanks};
  Arena scratch_{compute_, Arena::kUnbounded, MemoryKind::scratch};
  Buffer x_{compute_, DType::bf16, {kTokens / kRanks, kHidden}, MemoryKind::activations};
  Buffer dx_{compute_, DType::bf16, {kTokens / kRanks, kHidden}, MemoryKind::activations};
  Buffer dy_{compute_, DType::bf16, {kTokens, kOut}, MemoryKind::activations};
  Buffer weight_{compute_, DType::bf16, {kOut, kHidden}, MemoryKind::weights};
  Buffer dweight_{compute_, DType::f32, {kOut, kHidden}, MemoryKind::gradients};
  int missing_, waits_ = 0;
};

TEST(LinearOverlap, IsOrderedByItsWaits) {
  EXPECT_THAT(find_races(TwoLayers(TwoLayers::kNone).trace()), IsEmpty());
}

TEST(LinearOverlap, NeedsEachOfItsWaits) {
  const std::vector<std::vector<std::string>> expected{
      {"AllGather on tensor (1) reads bf16 [16, 32], which Zero on compute (1) writes as bf16 [16, 32], not "
       "waited for"},
      {"ReduceScatter on tensor (2) reads bf16 [64, 32], which Matmul on compute (5) writes as bf16 [64, "
       "32], not "
       "waited for"},
      {"Matmul on compute (6) reads bf16 [64, 32], which AllGather on tensor (1) writes as bf16 [64, 32], "
       "not "
       "waited for"},
      {"Add on compute (7) reads bf16 [16, 32], which ReduceScatter on tensor (2) writes as bf16 [16, 32], "
       "not "
       "waited for",
       // The arena lent `partial` again.
       "Matmul on compute (8) writes bf16 [64, 32], which ReduceScatter on tensor (2) reads as bf16 [64, "
       "32], not "
       "waited for"},
      {"AllGather on tensor (3) reads bf16 [16, 32], which Add on compute (7) writes as bf16 [16, 32], not "
       "waited for",
       // And `whole_x`.
       "AllGather on tensor (3) writes bf16 [64, 32], which Matmul on compute (6) reads as bf16 [64, 32], "
       "not "
       "waited for"},
      {"ReduceScatter on tensor (4) reads bf16 [64, 32], which Matmul on compute (8) writes as bf16 [64, "
       "32], not "
       "waited for"},
      {"Matmul on compute (9) reads bf16 [64, 32], which AllGather on tensor (3) writes as bf16 [64, 32], "
       "not "
       "waited for"},
      {"Add on compute (10) reads bf16 [16, 32], which ReduceScatter on tensor (4) writes as bf16 [16, 32], "
       "not "
       "waited for"}};
  for (int missing = 0; missing < TwoLayers::kWaits; ++missing) {
    std::vector<std::string> races;
    for (const Race& race : find_races(TwoLayers(missing).trace())) races.push_back(race.text());
    EXPECT_EQ(races, expected[static_cast<std::size_t>(missing)]) << "without wait " << missing;
  }
}

}  // namespace
}  // namespace verne
