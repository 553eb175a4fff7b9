#include "verne/ops/bias.hpp"

#include "support.hpp"

namespace verne {
namespace {

template <class S, class B>
void add_bias(CpuQueue& queue, const AddBias& op) {
  const std::int64_t width = op.y.size(1);
  const B* bias = op.bias.data<B>();
  for_rows(queue, op.y.size(0), width, [&](std::int64_t row) {
    S* y = row_of<S>(op.y, row);
    for (std::int64_t c = 0; c < width; ++c) y[c] = store<S>(load(y[c]) + load(bias[c]));
  });
}

}  // namespace

void launch(CpuQueue& queue, const AddBias& op) {
  if (op.bias.dtype() != op.y.dtype()) return add_bias<float, bf16>(queue, op);
  with_storage(op.y.dtype(), [&](auto s) { add_bias<decltype(s), decltype(s)>(queue, op); });
}

void launch(CpuQueue& queue, const BiasBackward& op) {
  with_storage(op.dy.dtype(), [&](auto s) {
    using S = decltype(s);
    const std::int64_t width = op.dy.size(1);
    put_gradient<Real<S>>(op.dbias, op.accumulate,
                          sum_over_rows(queue, op.dy.size(0), width, [&](std::int64_t row, double* sums) {
                            const S* dy = row_of<S>(op.dy, row);
                            for (std::int64_t c = 0; c < width; ++c)
                              sums[c] += static_cast<double>(load(dy[c]));
                          }));
  });
}

}  // namespace verne
