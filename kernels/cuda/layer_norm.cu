#include "cuda/norm.cuh"
#include "cuda/partials.cuh"
#include "verne/ops/rms_norm.hpp"

namespace verne {
namespace cuda {
namespace {

template <class T>
struct Forward {
  T *y, *sum;
  float *mean, *rstd;
  const T *x, *residual, *weight, *bias;
  std::int64_t y_stride, sum_stride, x_stride, residual_stride, width;
  float eps, offset;
};

template <class T, int kVector>
__global__ void __launch_bounds__(1024) layer_norm_forward(Forward<T> a) {
  const std::int64_t row = blockIdx.x;
  const RowColumns<kVector> columns{a.width};
  const T* x = a.x + row * a.x_stride;
  const T* residual = a.residual ? a.residual + row * a.residual_stride : nullptr;
  T* sum = a.sum ? a.sum + row * a.sum_stride : nullptr;
  const auto count = static_cast<float>(a.width);

  float kept[kKept][kVector];
  float total = 0.0f;
  columns.first(kept, [&](std::int64_t column, float(&s)[kVector]) {
    residual_sum<kVector, T>(s, sum + column, x + column, residual ? residual + column : nullptr);
#pragma unroll
    for (int i = 0; i < kVector; ++i) total += s[i];
  });
  const float mean = block_sum(total) / count;
  const auto reload = [&](std::int64_t column, float(&s)[kVector]) {
    load<kVector>(s, (residual ? sum : x) + column);
  };
  float squares = 0.0f;
  columns.again(kept, reload, [&](std::int64_t, float(&s)[kVector]) {
#pragma unroll
    for (int i = 0; i < kVector; ++i) squares += (s[i] - mean) * (s[i] - mean);
  });
  const float rstd = rsqrtf(block_sum(squares) / count + a.eps);
  if (threadIdx.x == 0) {
    a.mean[row] = mean;
    a.rstd[row] = rstd;
  }
  T* y = a.y + row * a.y_stride;
  columns.again(kept, reload, [&](std::int64_t column, float(&s)[kVector]) {
    float weight[kVector], bias[kVector];
    load<kVector>(weight, a.weight + column);
    load<kVector>(bias, a.bias + column);
#pragma unroll
    for (int i = 0; i < kVector; ++i) bias[i] += (s[i] - mean) * rstd * (weight[i] + a.offset);
    store<kVector>(y + column, bias);
  });
}

template <class T>
struct Backward {
  T* dx;
  float* partial;  // [2, blocks, width]: dweight, then dbias; null where frozen
  const T *dy, *dsum, *s, *weight;
  const float *mean, *rstd;
  std::int64_t dx_stride, dy_stride, dsum_stride, s_stride, rows, width;
  float offset;
};

template <class T, int kVector>
__global__ void __launch_bounds__(1024) layer_norm_backward(Backward<T> a) {
  extern __shared__ __align__(16) float dweight[];  // [2, width], as in RMSNorm
  float* dbias = dweight + a.width;
  const RowColumns<kVector> columns{a.width};
  float kept[kKept][kVector];
  if (a.partial) {
    columns.first(kept, [&](std::int64_t column, float(&zero)[kVector]) {
#pragma unroll
      for (int i = 0; i < kVector; ++i) zero[i] = 0.0f;
      store<kVector>(dweight + column, zero);
      store<kVector>(dbias + column, zero);
    });
  }
  for (std::int64_t row = blockIdx.x; row < a.rows; row += gridDim.x) {
    const T* dy = a.dy + row * a.dy_stride;
    const T* s = a.s + row * a.s_stride;
    const float mean = a.mean[row], rstd = a.rstd[row];
    float sum_g = 0.0f, sum_gn = 0.0f;
    columns.first(kept, [&](std::int64_t column, float(&n)[kVector]) {
      float grad[kVector], weight[kVector];
      load<kVector>(n, s + column);
      load<kVector>(grad, dy + column);
      load<kVector>(weight, a.weight + column);
#pragma unroll
      for (int i = 0; i < kVector; ++i) {
        n[i] = (n[i] - mean) * rstd;
        const float g = grad[i] * (weight[i] + a.offset);
        sum_g += g;
        sum_gn += g * n[i];
      }
    });
    const float mean_g = block_sum(sum_g) / static_cast<float>(a.width);
    const float mean_gn = block_sum(sum_gn) / static_cast<float>(a.width);
    const auto reload = [&](std::int64_t column, float(&n)[kVector]) {
      load<kVector>(n, s + column);
#pragma unroll
      for (int i = 0; i < kVector; ++i) n[i] = (n[i] - mean) * rstd;
    };
    columns.again(kept, reload, [&](std::int64_t column, float(&n)[kVector]) {
      float grad[kVector], weight[kVector];
      load<kVector>(grad, dy + column);
      load<kVector>(weight, a.weight + column);
      if (a.partial) {
        float sum[kVector];
        load<kVector>(sum, dweight + column);
#pragma unroll
        for (int i = 0; i < kVector; ++i) sum[i] += grad[i] * n[i];
        store<kVector>(dweight + column, sum);
        load<kVector>(sum, dbias + column);
#pragma unroll
        for (int i = 0; i < kVector; ++i) sum[i] += grad[i];
        store<kVector>(dbias + column, sum);
      }
#pragma unroll
      for (int i = 0; i < kVector; ++i) {
        grad[i] = rstd * (grad[i] * (weight[i] + a.offset) - mean_g - n[i] * mean_gn);
      }
      if (a.dsum) {
        float other[kVector];
        load<kVector>(other, a.dsum + row * a.dsum_stride + column);
#pragma unroll
        for (int i = 0; i < kVector; ++i) grad[i] += other[i];
      }
      store<kVector>(a.dx + row * a.dx_stride + column, grad);
    });
  }
  if (a.partial) {
    const auto reload = [&](std::int64_t, float(&)[kVector]) {};
    columns.again(kept, reload, [&](std::int64_t column, float(&sum)[kVector]) {
      load<kVector>(sum, dweight + column);
      store<kVector>(a.partial + blockIdx.x * a.width + column, sum);
      load<kVector>(sum, dbias + column);
      store<kVector>(a.partial + (gridDim.x + blockIdx.x) * a.width + column, sum);
    });
  }
}

}  // namespace
}  // namespace cuda

using namespace cuda;

// Memory bound: 4 elements moved with a residual, 2 without. 81 % of an H200's bandwidth at 8192 x 4096.
void launch(CudaQueue& queue, const LayerNormForward& op) {
  const std::int64_t rows = op.x.size(0), width = op.x.size(1);
  if (rows == 0 || width == 0) return;
  for_storage(op.x.dtype(), [&](auto storage) {
    using T = decltype(storage);
    const bool wide = width % kPack<T> == 0 &&
                      rows_aligned(kPack<T>, {op.y.data, op.sum, op.x, op.residual, op.weight, op.bias});
    for_access<T>(wide, [&](auto access) {
      const Forward<T> arguments{.y = pointer<T>(op.y.data),
                                 .sum = pointer<T>(op.sum),
                                 .mean = op.mean.data<float>(),
                                 .rstd = op.rstd.data<float>(),
                                 .x = pointer<const T>(op.x),
                                 .residual = pointer<const T>(op.residual),
                                 .weight = pointer<const T>(op.weight),
                                 .bias = pointer<const T>(op.bias),
                                 .y_stride = op.y.data.stride(),
                                 .sum_stride = op.sum.stride(),
                                 .x_stride = op.x.stride(),
                                 .residual_stride = op.residual.stride(),
                                 .width = width,
                                 .eps = static_cast<float>(op.eps),
                                 .offset = static_cast<float>(op.weight_offset)};
      layer_norm_forward<T, access()>
          <<<static_cast<unsigned>(rows), row_threads(width, access()), 0, stream_of(queue)>>>(arguments);
      check_launch(LayerNormForward::kName);
    });
  });
}

// Memory bound: 4 elements moved with dsum, 3 without. 52 % of an H200's bandwidth at 8192 x 4096: two
// reductions a row wait.
void launch(CudaQueue& queue, const LayerNormBackward& op) {
  const std::int64_t rows = op.s.size(0), width = op.s.size(1);
  if (width == 0) return;
  const std::int64_t blocks = backward_blocks(queue, rows);
  const bool trained = !op.dweight.empty();
  const std::int64_t bytes = bytes_of(DType::f32, trained ? 2 * width : 0);
  Tensor partial;
  if (trained) partial = Tensor(queue.workspace(blocks * bytes), DType::f32, Shape{2 * blocks, width});
  for_storage(op.s.dtype(), [&](auto storage) {
    using T = decltype(storage);
    const bool wide =
        width % kPack<T> == 0 && rows_aligned(kPack<T>, {op.dx, op.dy, op.dsum, op.s, op.weight});
    for_access<T>(wide, [&](auto access) {
      const auto kernel = layer_norm_backward<T, access()>;
      const Backward<T> arguments{.dx = pointer<T>(op.dx),
                                  .partial = pointer<float>(partial),
                                  .dy = pointer<const T>(op.dy),
                                  .dsum = pointer<const T>(op.dsum),
                                  .s = pointer<const T>(op.s),
                                  .weight = pointer<const T>(op.weight),
                                  .mean = op.mean.data<float>(),
                                  .rstd = op.rstd.data<float>(),
                                  .dx_stride = op.dx.stride(),
                                  .dy_stride = op.dy.stride(),
                                  .dsum_stride = op.dsum.stride(),
                                  .s_stride = op.s.stride(),
                                  .rows = rows,
                                  .width = width,
                                  .offset = static_cast<float>(op.weight_offset)};
      const cudaStream_t stream = stream_of(queue);
      reserve_shared(kernel, bytes);
      kernel<<<static_cast<unsigned>(blocks), row_threads(width, access()), static_cast<std::size_t>(bytes),
               stream>>>(arguments);
      check_launch(LayerNormBackward::kName);
    });
  });
  if (trained) {
    add_partials(queue, op.dweight, op.accumulate_dweight, partial.rows(0, blocks));
    add_partials(queue, op.dbias, op.accumulate_dbias, partial.rows(blocks, blocks));
  }
}

}  // namespace verne
