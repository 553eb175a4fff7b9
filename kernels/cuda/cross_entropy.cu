#include "cuda/device.cuh"
#include "verne/ops/cross_entropy.hpp"

namespace verne {
namespace cuda {
namespace {

constexpr int kRowThreads = 512;

/// max and Σ exp(x − max) of what was seen.
struct Running {
  float max = -INFINITY;
  float sum = 0.0f;
};

template <class T, int kVector>
__global__ void __launch_bounds__(kRowThreads)
    statistics_kernel(float* stats, const T* logits, const std::int32_t* targets, std::int64_t stride,
                      std::int64_t first_column, std::int64_t valid_columns) {
  const std::int64_t row = blockIdx.x;
  const T* x = logits + row * stride;
  Running seen;
  const auto add = [&](const auto& values) {
    float max = seen.max;
    for (const float v : values) max = fmaxf(max, v);
    if (max == -INFINITY) return;
    float sum = seen.sum * __expf(seen.max - max);
    for (const float v : values) sum += __expf(v - max);
    seen = {max, sum};
  };
  const std::int64_t whole = valid_columns / kVector * kVector;
#pragma unroll 2
  for (std::int64_t column = static_cast<std::int64_t>(threadIdx.x) * kVector; column < whole;
       column += kRowThreads * kVector) {
    float values[kVector];
    load<kVector>(values, x + column);
    add(values);
  }
  for (std::int64_t column = whole + threadIdx.x; column < valid_columns; column += kRowThreads) {
    const float value[1] = {to_float(x[column])};
    add(value);
  }
  const float max = block_max(seen.max);
  // A NaN logit is lost by fmaxf but not by its exponential, so the sum carries it on.
  const float sum = block_sum(seen.max == -INFINITY ? seen.sum : seen.sum * __expf(seen.max - max));
  if (threadIdx.x == 0) {
    const std::int64_t target = targets[row] - first_column;
    stats[row * 3] = max;
    stats[row * 3 + 1] = sum;
    stats[row * 3 + 2] = target >= 0 && target < valid_columns ? to_float(x[target]) : -INFINITY;
  }
}

__global__ void combine_kernel(float* log_probability, float* log_sum_exp, const float* stats,
                               std::int64_t blocks, std::int64_t tokens) {
  const std::int64_t token = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (token >= tokens) return;
  float max = -INFINITY, target = -INFINITY;
  for (std::int64_t block = 0; block < blocks; ++block) {
    const float* s = stats + (block * tokens + token) * 3;
    max = fmaxf(max, s[0]);
    target = fmaxf(target, s[2]);
  }
  float sum = 0.0f;
  for (std::int64_t block = 0; block < blocks; ++block) {
    const float* s = stats + (block * tokens + token) * 3;
    if (s[0] != -INFINITY || s[1] != 0.0f) sum += s[1] * expf(s[0] - max);
  }
  const float result = max + logf(sum);
  log_sum_exp[token] = result;
  log_probability[token] = target - result;
}

template <class T, int kVector>
__global__ void __launch_bounds__(kMapThreads)
    backward_kernel(T* dlogits, const T* logits, const std::int32_t* targets, const float* log_sum_exp,
                    const std::uint8_t* loss_mask, const float* scale, std::int64_t dlogits_stride,
                    std::int64_t stride, std::int64_t columns, std::int64_t first_column,
                    std::int64_t valid_columns, std::int64_t tokens) {
  for (std::int64_t row = blockIdx.y; row < tokens; row += gridDim.y) {
    const bool counted = loss_mask[row] != 0;
    const float factor = *scale, lse = log_sum_exp[row];
    const std::int64_t target = targets[row] - first_column;
    const T* x = logits + row * stride;
    T* dx = dlogits + row * dlogits_stride;
    const auto gradient = [&](std::int64_t column, float value) {
      if (column >= valid_columns) return 0.0f;
      return factor * (__expf(value - lse) - (column == target ? 1.0f : 0.0f));
    };
    for (std::int64_t column = (static_cast<std::int64_t>(blockIdx.x) * kMapThreads + threadIdx.x) * kVector;
         column < columns; column += static_cast<std::int64_t>(gridDim.x) * kMapThreads * kVector) {
      if (column + kVector <= columns) {
        float values[kVector] = {};
        if (counted) {
          load<kVector>(values, x + column);
#pragma unroll
          for (int i = 0; i < kVector; ++i) values[i] = gradient(column + i, values[i]);
        }
        store<kVector>(dx + column, values);
      } else {
        for (std::int64_t i = column; i < columns; ++i) {
          dx[i] = from_float<T>(counted ? gradient(i, to_float(x[i])) : 0.0f);
        }
      }
    }
  }
}

}  // namespace
}  // namespace cuda

using namespace cuda;

// Memory bound: reads every logit once. All of an H200's bandwidth at 8192 x 128256.
void launch(CudaQueue& queue, const CrossEntropyStatistics& op) {
  const std::int64_t tokens = op.logits.size(0);
  if (tokens == 0) return;
  for_storage(op.logits.dtype(), [&](auto storage) {
    using T = decltype(storage);
    for_access<T>(rows_aligned(kPack<T>, {op.logits}), [&](auto access) {
      statistics_kernel<T, access()><<<static_cast<unsigned>(tokens), kRowThreads, 0, stream_of(queue)>>>(
          op.stats.data<float>(), pointer<const T>(op.logits), op.targets.data<std::int32_t>(),
          op.logits.stride(), op.first_column, op.valid_columns);
      check_launch(CrossEntropyStatistics::kName);
    });
  });
}

void launch(CudaQueue& queue, const CrossEntropyCombine& op) {
  const std::int64_t blocks = op.stats.size(0), tokens = op.stats.size(1);
  if (tokens == 0) return;
  combine_kernel<<<static_cast<unsigned>(divide_round_up<std::int64_t>(tokens, 128)), 128, 0,
                   stream_of(queue)>>>(op.log_probability.data<float>(), op.log_sum_exp.data<float>(),
                                       op.stats.data<float>(), blocks, tokens);
  check_launch(CrossEntropyCombine::kName);
}

// Memory bound: reads and writes every logit once; rows that do not count are only written. 68 % of an H200's
// bandwidth at 8192 x 128256.
void launch(CudaQueue& queue, const CrossEntropyBackward& op) {
  const std::int64_t tokens = op.logits.size(0), columns = op.logits.size(1);
  if (tokens == 0 || columns == 0) return;
  for_storage(op.logits.dtype(), [&](auto storage) {
    using T = decltype(storage);
    for_access<T>(rows_aligned(kPack<T>, {op.logits, op.dlogits}), [&](auto access) {
      const dim3 grid(static_cast<unsigned>(divide_round_up<std::int64_t>(columns, kMapThreads * access())),
                      static_cast<unsigned>(std::min<std::int64_t>(tokens, 65535)));
      backward_kernel<T, access()><<<grid, kMapThreads, 0, stream_of(queue)>>>(
          pointer<T>(op.dlogits), pointer<const T>(op.logits), op.targets.data<std::int32_t>(),
          op.log_sum_exp.data<float>(), op.loss_mask.data<std::uint8_t>(), op.scale.data<float>(),
          op.dlogits.stride(), op.logits.stride(), columns, op.first_column, op.valid_columns, tokens);
      check_launch(CrossEntropyBackward::kName);
    });
  });
}

}  // namespace verne
