#include "verne/ops/embedding.hpp"

#include "support.hpp"

namespace verne {
namespace {

template <class S>
void forward(CpuQueue& queue, const EmbeddingForward& op) {
  const std::int64_t rows = op.weight.size(0), width = op.weight.size(1);
  for_rows(queue, op.tokens.size(0), width, [&](std::int64_t t) {
    const std::int64_t row = op.tokens.data<std::int32_t>()[t] - op.first_row;
    S* y = op.y.data<S>() + t * width;
    if (row < 0 || row >= rows) {
      std::fill(y, y + width, S(0));
      return;
    }
    const S* from = op.weight.data<S>() + row * width;
    std::copy(from, from + width, y);
  });
}

/// Threads share the columns out, so that each adds its own in token order.
template <class S>
void backward(CpuQueue& queue, const EmbeddingBackward& op) {
  using R = Real<S>;
  constexpr std::int64_t kColumns = 64;
  const std::int64_t rows = op.dweight.size(0), width = op.dweight.size(1), tokens = op.tokens.size(0);
  R* dweight = op.dweight.data<R>();
  if (op.accumulate == Accumulate::no) {
    for_chunks(queue, op.dweight.count(), [&](std::int64_t begin, std::int64_t end) {
      std::fill(dweight + begin, dweight + end, R{0});
    });
  }
  queue.parallel_for(width, kColumns, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t t = 0; t < tokens; ++t) {
      const std::int64_t row = op.tokens.data<std::int32_t>()[t] - op.first_row;
      if (row < 0 || row >= rows) continue;
      const S* dy = op.dy.data<S>() + t * width;
      R* sum = dweight + row * width;
      for (std::int64_t c = begin; c < end; ++c) sum[c] += load(dy[c]);
    }
  });
}

}  // namespace

void launch(CpuQueue& queue, const EmbeddingForward& op) {
  with_storage(op.weight.dtype(), [&](auto s) { forward<decltype(s)>(queue, op); });
}
void launch(CpuQueue& queue, const EmbeddingBackward& op) {
  with_storage(op.dy.dtype(), [&](auto s) { backward<decltype(s)>(queue, op); });
}

}  // namespace verne
